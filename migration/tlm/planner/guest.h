/*
 * TLM planner: what is known of the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_GUEST_H
#define TLM_PLANNER_GUEST_H

#include "link.h"

/* What others see of it, as of this step; rates in guest bytes/s */
typedef struct TlmGuestView {
    double again;               /* bytes owed again since the last sample */
    double redirty;             /* rate at which they are, smoothed */
    double dirty_rate;          /* at full speed */
    double dirty_rate_most;     /* in any epoch, but forgotten slowly */
    /* either: a hot set, written in each epoch, and writes beside it */
    double hot_set, cold_rate;
    /* or: evenly over @work_set, if @work_hits (hits/s on a page) is not 0 */
    double work_set, work_hits;
    double bias;                /* pages owed again, measured / forecast */
    /* what of the link's time is of use */
    double yield;               /* share of it */
    double yield_least;         /* the worst of the last epochs */
    double wasted;              /* s of it, on pages dirtied again */
    double credit;              /* s of it that dtx may waste */
    bool located;               /* where it writes has been measured */
} TlmGuestView;

/* Owns what has been learned of the guest */
typedef struct TlmGuest TlmGuest;

TlmGuest *tlm_guest_new(void);
void tlm_guest_free(TlmGuest *g);

/* Learn from a sample; @slowed: the guest was meant to be throttled */
void tlm_guest_learn(TlmGuest *g, const TlmPlanNow *n, const TlmLinkView *link,
                     bool slowed);

/* Without samples: @hot_set is written in each epoch, and @cold_rate beside */
void tlm_guest_suppose(TlmGuest *g, double dirty_rate, double hot_set,
                       double cold_rate);

/* It has been throttled: until measured, assume so much owed again */
void tlm_guest_expect(TlmGuest *g, double redirty);

/* The link has changed: what was wasted on the old one tells nothing */
void tlm_guest_forget_waste(TlmGuest *g);

void tlm_guest_view(const TlmGuest *g, TlmGuestView *v);

/*
 * Bytes of @clean and @unsent pages that become dirty per second, per byte of
 * these pages
 */
double tlm_guest_hit_rate(const TlmGuestView *v, double total, double clean,
                          double unsent, double dirty);

#endif
