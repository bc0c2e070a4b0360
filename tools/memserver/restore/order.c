/*
 * Which page goes next
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "order.h"

/*
 * Neighbours of a page that was asked for.  QEMU loads a page in 3 to 4 us,
 * and a request takes some 60 us: so half of them may be in vain.
 */
#define FOLLOW 8

struct Order {
    Owed *owed;
    GQueue requests;                    /* Pick *, taken already */
    unsigned block;                     /* where the others are looked for */
    uint64_t page;
    unsigned follow;                    /* neighbours to come */
};

Order *order_new(Owed *owed)
{
    Order *o = g_new0(Order, 1);

    o->owed = owed;
    g_queue_init(&o->requests);
    return o;
}

void order_free(Order *o)
{
    if (o) {
        g_queue_clear_full(&o->requests, g_free);
        g_free(o);
    }
}

void order_request(Order *o, unsigned block, uint64_t page)
{
    OwedKind kind = owed_take(o->owed, block, page);
    Pick *p;

    if (kind == OWED_NOT) {
        return;
    }
    /* Taken now: so the queue cannot be longer than there are pages */
    p = g_new(Pick, 1);
    *p = (Pick) { block, page, kind == OWED_DATA };
    g_queue_push_tail(&o->requests, p);
}

bool order_has_requests(const Order *o)
{
    return o->requests.length;
}

bool order_next(Order *o, OrderFor what, Pick *pick)
{
    g_autofree Pick *asked = g_queue_pop_head(&o->requests);

    if (asked) {
        *pick = *asked;
        o->block = asked->block;
        o->page = asked->page + 1;
        o->follow = FOLLOW;
        return true;
    }
    if (what == ORDER_REQUEST || (what == ORDER_FOLLOW && !o->follow)) {
        return false;
    }
    if (!owed_next(o->owed, &o->block, &o->page)) {
        return false;
    }
    *pick = (Pick) { o->block, o->page, true };
    owed_take(o->owed, o->block, o->page);
    o->page++;
    o->follow -= o->follow > 0;
    return true;
}

bool order_next_zero(Order *o, Pick *pick)
{
    uint64_t next = pick->page + 1;

    if (pick->data || next == owed_pages(o->owed, pick->block) ||
        owed_page_size(o->owed, pick->block) != PAGE_SIZE ||
        owed_kind(o->owed, pick->block, next) != OWED_ZERO) {
        return false;
    }
    owed_take(o->owed, pick->block, next);
    pick->page = next;
    return true;
}
