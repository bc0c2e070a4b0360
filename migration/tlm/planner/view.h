/*
 * TLM planner: all values that a decision uses, computed once per step
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_VIEW_H
#define TLM_PLANNER_VIEW_H

#include "guest.h"

/* s of downtime if the guest stopped now */
typedef struct TlmStopTimes {
    double safe;                /* with what the link is known to carry */
    double guess;               /* with what it probably carries */
    double least;               /* with the most that it may carry */
    double postcopy;            /* s until all is there, if by post-copy */
} TlmStopTimes;

/* Where the migration goes at full speed; see forecast.h */
typedef struct TlmPassForecast {
    double pass;                /* s until mtx is done */
    double left;                /* guest bytes dirty then */
    double hot;                 /* part of it that stays hot */
    double refill;              /* bytes/s becoming owed again then */
} TlmPassForecast;

typedef struct TlmPlanView {
    TlmPlanNow now;
    TlmLinkView link;
    TlmGuestView guest;
    /* what follows from them: tlm_view_complete() */
    double epoch_rate;          /* guest bytes/s sent in an epoch */
    double mean_bandwidth;      /* wire bytes/s, syncs taken off */
    double mean_rate;           /* the same in guest bytes/s */
    double meanwhile;           /* bytes dirtied until the guest stops */
    double fit;                 /* guest bytes within the downtime limit */
    /* tlm_view_stop() */
    TlmStopTimes stop;
    /* tlm_forecast_pass() */
    TlmPassForecast pass;
} TlmPlanView;

/* Compute what follows from now, link and guest */
void tlm_view_complete(TlmPlanView *v);

/* Compute the stop times for @dirty bytes beside what is unsent */
void tlm_view_stop(TlmPlanView *v, double dirty);

/* s of downtime if the guest stopped with @dirty bytes owed; safe */
double tlm_view_stop_time(const TlmPlanView *v, double dirty);

/* wire bytes/s that post-copy can be counted on to send; 0: not known */
double tlm_view_postcopy_rate(const TlmPlanView *v);

/*
 * s from now until all of RAM is there, if the rest goes by post-copy: @dirty
 * bytes, and @unsent ones.  Safe: the time bound is kept by it.
 */
double tlm_view_postcopy_time(const TlmPlanView *v, double unsent,
                              double dirty);

/* Would a stop with @dirty bytes owed be short for sure? */
bool tlm_view_fits(const TlmPlanView *v, double dirty);

/* True if only a cap is known of the link: what it carries is a guess */
static inline bool tlm_view_blind(const TlmPlanView *v)
{
    return v->stop.guess < v->stop.safe;
}

#endif
