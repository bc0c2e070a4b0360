/*
 * TLM planner: what one step works on, in doubles and free of nonsense
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_NOW_H
#define TLM_PLANNER_NOW_H

#include "planner.h"

/*
 * s; shorter epochs are not measured, as their bytes sit in buffers.  Only the
 * end of the pass makes an epoch that short.  Must stay well below
 * EPOCH_FLOOR.
 */
#define EPOCH_TELLS     0.001

/*
 * s; no epoch is meant to be shorter: each costs a sync of the dirty log and
 * a multifd sync.  With more, the last one overshoots the deadline, or the
 * moment at which what is left fits (impossible-limit).
 */
#define EPOCH_FLOOR     0.02

/*
 * s; a page is hot if it was dirtied so short a time ago, unless the
 * coordinator says otherwise.  It ages pages every 0.5 s, so the last write to
 * a page that it calls hot is 0.5 to 1 s old.  With more or less than that,
 * writes are taken for other writes than they were.
 */
#define HOT_WINDOW      0.8

/*
 * The lowest speed of a throttled guest.  With less, a pulse is shorter than a
 * timer can tell.  With more, a large guest is paused that could have run a
 * little.
 */
#define SPEED_MIN       0.002

typedef struct TlmPlanNow {
    /* what the user wants, as of this step */
    uint64_t bound_ms;
    double bound;               /* s; 0: none */
    double limit;               /* s of downtime */
    double cap;                 /* bytes/s in the live stage; 0: none */
    double told;                /* bytes/s in stop stage; 0: not told */
    double postcopy_cap;        /* bytes/s in post-copy; 0: none */
    double fixed_epoch;         /* s; 0: adaptive */
    bool converge;              /* go on after the pass while it pays */
    bool postcopy;              /* rather than stop for longer than limit */
    bool postcopy_bound;        /* rather than overrun the bound */
    bool cancel;                /* rather than overrun the bound */
    bool hold;                  /* after the pass, until asked */
    double keep;                /* bytes that memory can hold, not sent */
    bool asked;                 /* to end the live stage */

    /* the clock, and what the coordinator's own work costs */
    unsigned step;              /* number of this step, from 0 */
    double clock;               /* s; never runs backwards */
    double sync;                /* s, smoothed */
    double duty;                /* share of the time that epochs make up */

    /* this sample */
    double epoch;               /* s, its sync may be part of it */
    double active;              /* s of it that the link had work */
    double dt;                  /* s since the last sample */
    double total, unsent, dirty, hot, fresh, skipped, device;
    double window;              /* s, hot is what was dirtied within */
    double sent, covered, zero;
    double held;                /* s of it that the cap held back */
    double burst;               /* bytes/s seen when it did not, or 0 */
    double speed;
    bool mtx_done;
    bool can_stop;              /* the destination is ready for it */
} TlmPlanNow;

/* Owns the clock */
typedef struct TlmPlanClock TlmPlanClock;

TlmPlanClock *tlm_clock_new(void);
void tlm_clock_free(TlmPlanClock *c);

/* Fill @n; wrong values in @s become harmless */
void tlm_clock_take_in(TlmPlanClock *c, const TlmPlanParams *params,
                       const TlmPlanSample *s, TlmPlanNow *n);

/* Fill @n before there is a sample: parameters only, no time has passed */
void tlm_now_at_start(const TlmPlanParams *params, TlmPlanNow *n);

/* Suppose that @hot of @total bytes are dirty, and none have been sent */
void tlm_now_suppose(TlmPlanNow *n, double total, double hot, double device);

#endif
