/*
 * How far ahead of QEMU one may be
 *
 * What is on its way cannot be overtaken by a page that is asked for.  So
 * only as much is sent as the path holds, and a little more, so that QEMU
 * always has something to load.  A PING goes with each message, and QEMU
 * answers when it has loaded all before it:
 *
 *   bytes on their way <= rate * shortest time + queue
 *
 * where rate is what was loaded between PING and PONG.  The idea is that of
 * TCP Vegas and BBR.  The PONGs are also the proof of what QEMU has.
 *
 * Times are in ns, of a clock that never goes back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_CREDIT_H
#define RESTORE_CREDIT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Credit Credit;

/* @last: the value of the last PING sent before, which is not answered. */
Credit *credit_new(uint32_t last);
void credit_free(Credit *c);

/* @bytes go out now.  Returns the value of the PING behind them. */
uint32_t credit_ping(Credit *c, uint64_t bytes, int64_t now);

/* False: no PING that is unanswered had this value. */
bool credit_pong(Credit *c, uint32_t value, int64_t now);

/* May more be sent?  @busy: the guest is asking for pages. */
bool credit_may(const Credit *c, bool busy);

/* Good for one message. */
unsigned credit_pages(const Credit *c, bool busy);

/* All PINGs were answered. */
bool credit_idle(const Credit *c);

uint64_t credit_in_flight(const Credit *c);     /* bytes */
double credit_rate(const Credit *c);            /* bytes/s, 0: not known */
int64_t credit_shortest(const Credit *c);       /* ns */

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Credit, credit_free)

#endif
