/*
 * TLM planner: what the time bound calls for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_BOUND_H
#define TLM_PLANNER_BOUND_H

#include "view.h"

/* For how long the bound has seemed out of reach; only bound.c writes it */
typedef struct TlmBoundDoubt {
    unsigned samples;           /* in a row */
    double since;               /* clock */
} TlmBoundDoubt;

typedef enum {
    TLM_BOUND_NO_SAY,           /* other rules decide */
    TLM_BOUND_DOUBTED,          /* to be cancelled if that lasts: no stop */
    TLM_BOUND_THROTTLE,         /* the last moment to keep it by throttling */
    TLM_BOUND_POSTCOPY,         /* the last moment to keep it by post-copy */
    TLM_BOUND_STOP,             /* the last moment to keep it by stopping */
    TLM_BOUND_OVERRUN,          /* too late: overrun it least, by stopping */
    TLM_BOUND_LOST,             /* to be cancelled: it cannot be kept */
    TLM_BOUND_PASSED,           /* to be cancelled: it has passed */
} TlmBoundCall;

/*
 * What does the bound, if any, call for?  @full_speed: the guest is not
 * throttled yet.  @epoch: length of the next epoch, which may become shorter.
 * @reachable becomes false if the bound is out of reach.
 */
TlmBoundCall tlm_bound_call(TlmBoundDoubt *b, const TlmPlanView *v,
                            bool full_speed, double *epoch, bool *reachable);

/* The link is another one */
void tlm_bound_forget(TlmBoundDoubt *b);

/* The latest end that keeps @bound: a later one is more than noise */
double tlm_bound_latest_end(double bound);

#endif
