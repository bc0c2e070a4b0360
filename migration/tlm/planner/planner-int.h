/*
 * TLM planner: what its files share
 *
 * How it decides and why: docs/planner.md.  The interface is planner.h.
 *
 * Units in here: seconds and bytes, as double.  "Guest bytes" are RAM;
 * "wire bytes" are what they become on the link.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_INT_H
#define TLM_PLANNER_INT_H

#include <math.h>
#include "planner.h"

#define MS_PER_S 1e3

/* Epoch length */
#define EPOCH_MIN       0.1     /* adaptive, before the end is near */
#define EPOCH_FLOOR     0.02    /* never shorter */
#define EPOCH_TELLS     0.001   /* shorter ones are not measured */

/* Pages stay hot for so long, unless the coordinator says otherwise */
#define HOT_WINDOW      0.8

/* Stopping costs this much beside a sync and the bytes that are left */
#define STOP_OVERHEAD   0.012

/* Throttled, the guest may dirty this part of what the link carries */
#define THROTTLE_SHARE      0.05
/* Beyond this part a pulse is too long, however short it is */
#define THROTTLE_SHARE_MAX  0.20
#define SPEED_MIN           0.002
/* Full speed may take so much longer than throttling before it loses */
#define FULL_SPEED_PATIENCE 2.5

/* While mtx works, so many seconds of the link may go to waste at once */
#define WASTE_CREDIT    0.3

/* Differences to the bound that are put down to noise */
#define BOUND_NOISE_SHARE 0.01
#define BOUND_NOISE       0.02

#define FOREVER         1e15    /* s; no quantity in here is larger */

/*
 * While nothing but a cap on the live stage is known of the link, it is
 * taken to carry so many times as much: whoever sets a cap leaves as much
 * to others.
 */
#define CAP_HIDES       2.0

struct TlmPlanner {
    unsigned samples;
    int64_t last_now_ns;
    double clock;               /* s; never runs backwards */

    /* the link */
    double bw;                  /* wire bytes/s, smoothed */
    double bw_recent;           /* the same over a shorter time */
    double bw_short;            /* share of bw that epochs lack */
    double bw_weight;           /* s that bw rests on */
    double bw_least;            /* most ever seen in any epoch */
    unsigned bw_samples;
    unsigned bw_off;            /* epochs in a row far off the average */
    double bw_time;             /* s of the link that bw has been measured */
    double cap;                 /* bytes/s in the last step; 0: none */
    bool held;                  /* bw is what a cap lets through */
    double free;                /* s since it last held anything back */
    double bursts[3];           /* so: bytes/s of the last ones, */
    unsigned n_bursts;
    double burst;               /* and their median */
    double link;                /* bytes/s to count on; 0: not known */
    double duty;                /* share of the time that epochs make up */
    double silent;              /* s that nothing has been sent */
    double silent_most;         /* s, the longest silence that ended */

    /* what becomes of guest bytes on the wire */
    double wire_per_byte;       /* of pages with data */
    double data_seen;           /* guest bytes that it rests on */
    double passed_bytes, passed_zero; /* sent while mtx walked */
    bool zero_counted;          /* the coordinator counts zero pages */
    double scan_rate;           /* guest bytes/s through zero pages */

    /* what the guest does */
    double owed;                /* unsent + dirty at the last sample */
    double total;
    double sync;                /* s */
    double redirty;             /* bytes/s that become owed again */
    double dirty_rate;          /* bytes/s at full speed */
    double dirty_rate_most;     /* in any epoch */
    double hot_set;             /* written in each epoch */
    double cold_rate;           /* bytes/s written beside it */
    double epoch_set;           /* bytes written to in an epoch */
    bool locality_known, guessed;
    double work_set, work_hits; /* or: evenly, hits/s on each page of it */
    double bias;                /* redirty, measured against forecast */
    double yield;               /* useful share of the link's capacity */
    double yield_least;         /* the worst of the last epochs */
    double yields[3];
    double wasted;              /* s of the link, on pages dirtied again */
    double credit;              /* s of the link that dtx may waste */

    /* decisions that last */
    bool passed;                /* mtx is done */
    double passed_at, patience;
    bool throttled;
    uint64_t throttled_bound_ms; /* the bound that required it; or 0 */
    double speed;
    double pulse;               /* bytes/s owed again, per guest speed */
    double least_left;
    unsigned stuck;
    unsigned unreachable;       /* samples in a row */
    double unreachable_at;      /* when that began */
    double epoch;               /* s, of the next one */
    double progress;
};

/* What one step works on, in doubles and free of nonsense */
typedef struct TlmPlanNow {
    double epoch;               /* s, its sync may be part of it */
    double active;              /* s of it that the link had work */
    double dt;                  /* s since the last sample */
    double total, unsent, dirty, hot, fresh, device;
    double window;              /* s, hot is what was dirtied within */
    double sent, covered, zero;
    double held;                /* s of it that the cap held back */
    double burst;               /* bytes/s seen when it did not, or 0 */
    double speed;
} TlmPlanNow;

/* s of downtime if the guest stopped now */
typedef struct TlmPlanStop {
    double safe;                /* with what the link is known to carry */
    double guess;               /* with what it probably carries */
    double least;               /* with the most that it may carry */
} TlmPlanStop;

/* Where the migration goes at full speed */
typedef struct TlmPlanForecast {
    double pass;                /* s until mtx is done */
    double left;                /* guest bytes dirty then */
    double hot;                 /* part of it that stays hot */
    double refill;              /* bytes/s becoming owed again then */
} TlmPlanForecast;

static inline double sane(double x, double low, double high)
{
    if (!(x > low)) {
        return low;             /* NaN as well */
    }
    return x < high ? x : high;
}

/* @a / @b, and FOREVER at most */
static inline double ratio(double a, double b)
{
    if (a <= 0) {
        return 0;
    }
    if (b <= 0 || a / b > FOREVER) {
        return FOREVER;
    }
    return a / b;
}

static inline void smooth(double *avg, double x, double dt, double tau)
{
    *avg += (x - *avg) * sane(dt / (dt + tau), 0, 1);
}

static inline uint64_t to_ms(double s)
{
    return s >= FOREVER ? 0 : sane(s, 0, FOREVER) * MS_PER_S + 0.5;
}

/* planner-link.c */
double tlm_plan_live_bandwidth(const TlmPlanner *p,
                               const TlmPlanParams *params);
double tlm_plan_stop_bandwidth(const TlmPlanner *p,
                               const TlmPlanParams *params);
double tlm_plan_stop_bandwidth_guess(const TlmPlanner *p,
                                     const TlmPlanParams *params);
double tlm_plan_stop_bandwidth_most(const TlmPlanner *p,
                                    const TlmPlanParams *params);
bool tlm_plan_stop_known(const TlmPlanner *p, const TlmPlanParams *params);
bool tlm_plan_cap_raised(TlmPlanner *p, const TlmPlanParams *params);
void tlm_plan_learn_bandwidth(TlmPlanner *p, const TlmPlanNow *n);
void tlm_plan_learn_silence(TlmPlanner *p, const TlmPlanNow *n);
bool tlm_plan_link_dead(const TlmPlanner *p);
void tlm_plan_learn_pages(TlmPlanner *p, const TlmPlanNow *n, bool pass);
double tlm_plan_unsent_cost(const TlmPlanner *p, double bw);
double tlm_plan_stop_time_at(const TlmPlanner *p, double bw, double unsent,
                             double dirty, double device);
double tlm_plan_stop_time(const TlmPlanner *p, const TlmPlanParams *params,
                          double unsent, double dirty, double device);
double tlm_plan_fitting(const TlmPlanner *p, const TlmPlanParams *params,
                        double device);

/* planner-guest.c */
double tlm_plan_dirtied_meanwhile(const TlmPlanner *p);
double tlm_plan_hit_rate(const TlmPlanner *p, double clean, double unsent,
                         double dirty);
void tlm_plan_learn_guest(TlmPlanner *p, const TlmPlanNow *n, bool first);

/* planner-forecast.c */
bool tlm_plan_last_sweep_due(const TlmPlanParams *params, double pass_left,
                             double settled, double speed);
void tlm_plan_forecast(const TlmPlanner *p, const TlmPlanParams *params,
                       const TlmPlanNow *n, TlmPlanForecast *f);
double tlm_plan_throttled_time(const TlmPlanner *p, const TlmPlanParams *params,
                               double unsent, double left, double fit);
double tlm_plan_full_speed_time(const TlmPlanner *p,
                                const TlmPlanParams *params, double left,
                                double hot, double refill, double fit,
                                bool *send_hot);
void tlm_plan_fill_predictions(TlmPlanner *p, const TlmPlanParams *params,
                               const TlmPlanNow *n, const TlmPlanForecast *f,
                               const TlmPlanStop *stop, TlmPlanDecision *d);

/* planner-decide.c */
double tlm_plan_epoch_length(const TlmPlanner *p, const TlmPlanParams *params,
                             bool pass);
void tlm_plan_throttle(TlmPlanner *p, const TlmPlanParams *params);
void tlm_plan_release(TlmPlanner *p, const TlmPlanParams *params,
                      bool cap_raised);
void tlm_plan_adjust_throttle(TlmPlanner *p, const TlmPlanParams *params,
                              const TlmPlanNow *n, double again);
void tlm_plan_converge(TlmPlanner *p, const TlmPlanParams *params,
                       const TlmPlanNow *n, double fit, TlmPlanDecision *d);
bool tlm_plan_dtx_pays(const TlmPlanner *p, const TlmPlanParams *params,
                       const TlmPlanNow *n, const TlmPlanForecast *f);
bool tlm_plan_pass_is_futile(const TlmPlanner *p, const TlmPlanParams *params,
                             const TlmPlanNow *n, const TlmPlanForecast *f,
                             double fit);
bool tlm_plan_keep_bound(TlmPlanner *p, const TlmPlanParams *params,
                         const TlmPlanNow *n, const TlmPlanStop *stop,
                         bool trusted, TlmPlanDecision *d);

#endif
