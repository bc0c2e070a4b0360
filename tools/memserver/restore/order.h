/*
 * Which page goes next
 *
 * What was asked for; then a few of its neighbours; then all others, from
 * where was last asked, for a guest goes on where it is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_ORDER_H
#define RESTORE_ORDER_H

#include "owed.h"

typedef struct Order Order;

typedef struct Pick {
    unsigned block;
    uint64_t page;
    bool data;                          /* false: zero */
} Pick;

typedef enum OrderFor {
    ORDER_REQUEST,                      /* only what was asked for */
    ORDER_FOLLOW,                       /* neighbours, too */
    ORDER_ALL,
} OrderFor;

/* @owed is used by nobody else meanwhile. */
Order *order_new(Owed *owed);
void order_free(Order *o);

/* Asked for: also twice, and also if it is on its way. */
void order_request(Order *o, unsigned block, uint64_t page);

bool order_has_requests(const Order *o);

/* Takes a page; false if there is none of this kind. */
bool order_next(Order *o, OrderFor what, Pick *pick);

/*
 * Zero pages behind @pick that go along with one that was asked for: the guest
 * is about to use fresh memory.  Takes the next one; false if there is none.
 */
bool order_next_zero(Order *o, Pick *pick);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Order, order_free)

#endif
