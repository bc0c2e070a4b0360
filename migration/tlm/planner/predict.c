/*
 * TLM planner: predictions, for query-migrate
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "bound.h"
#include "forecast.h"
#include "predict.h"

/*
 * Part of an epoch of EPOCH_FLOOR that is sent beyond what was needed: half
 * an epoch on average, and END_MARGIN of plan.c.
 */
#define LAST_EPOCH_PART   0.75
/*
 * The deadline ends the live stage with at least this part of the predicted
 * downtime: a yield measured before says little of the last epochs.
 */
#define EARLY_DOWNTIME    0.5
/*
 * The limit is called reachable if so many times the total, and two epochs,
 * are within the bound: half-way, totals are off by less than that (median).
 * With three times as much, no limit is reachable (estimate).
 */
#define LIMIT_MARGIN      1.05

/*
 * Bytes that converging leaves of those that fit: the last epoch ends a little
 * after the moment when what is left is expected to fit.
 */
static double left_at_end(const TlmPlanView *v)
{
    return MAX(v->fit - v->mean_rate * EPOCH_FLOOR * LAST_EPOCH_PART,
               v->fit / 2);
}

/* Total time if the guest stays slowed; also the downtime */
static double predict_slowed(const TlmPlanView *v, const TlmPlanCourse *course,
                             double *downtime)
{
    const TlmPlanNow *n = &v->now;
    bool mtx_last = n->unsent > n->dirty;
    double fit = v->fit;
    double t = n->clock, left = n->unsent + n->dirty;

    if (mtx_last) {
        /* dtx is done first, and has little to do until mtx is */
        fit = MIN(fit, v->guest.redirty * course->epoch);
    }
    t += tlm_forecast_throttled(v, course->share, n->unsent, n->dirty, fit);
    if (left > fit) {
        left = mtx_last ? fit : left_at_end(v);
    }
    *downtime = tlm_view_stop_time(v, left);
    return MIN(t + *downtime, FOREVER);
}

/* Total time if all goes on as it does now; also the downtime */
static double predict(const TlmPlanView *v, const TlmPlanCourse *course,
                      double *downtime)
{
    const TlmPassForecast *f = &v->pass;
    double t, left;

    if (v->link.live <= 0) {
        *downtime = FOREVER;
        return FOREVER;
    }
    if (course->slowed) {
        return predict_slowed(v, course, downtime);
    }
    t = v->now.clock + f->pass;
    left = f->left;
    if (v->now.postcopy && !tlm_view_fits(v, left + v->meanwhile)) {
        *downtime = tlm_view_stop_time(v, 0);
        return MIN(t + tlm_view_postcopy_time(v, 0, left), FOREVER);
    }
    if (v->now.converge && left > v->fit) {
        bool send_hot;
        double full = tlm_forecast_full_speed(v, course->epoch, left, f->hot,
                                              f->refill, &send_hot);
        double slow = tlm_forecast_throttled(v, THROTTLE_SHARE, 0, left,
                                             v->fit);

        t += tlm_forecast_full_speed_pays(full, slow, course->epoch) ? full
                                                                     : slow;
        left = left_at_end(v);
    }
    *downtime = tlm_view_stop_time(v, left);
    return MIN(t + *downtime, FOREVER);
}

/* The deadline ends the live stage earlier than @total, with more left */
static double end_by_deadline(const TlmPlanView *v, double *downtime)
{
    double clock = v->now.clock, guess = v->stop.guess;
    double yield = v->guest.yield;
    double least = clock + guess;
    double total = MAX(v->now.bound, clock + v->stop.least);

    *downtime = MAX(*downtime, MIN(guess, total - clock));
    if (yield > 0 && yield < 1 && total > least) {
        *downtime = MAX(*downtime * EARLY_DOWNTIME,
                        guess - (total - least) * yield / (1 - yield));
    }
    return total;
}

/* s until the end that is the first that can be promised */
static double soonest(const TlmPlanView *v)
{
    return v->now.postcopy_bound ? MIN(v->stop.safe, v->stop.postcopy)
                                 : v->stop.safe;
}

double tlm_predict(const TlmPlanView *v, const TlmPlanCourse *course,
                   TlmPlanDecision *d)
{
    double bound = v->now.bound, clock = v->now.clock;
    double downtime, total, natural;

    total = natural = predict(v, course, &downtime);
    if (bound > 0 && total > bound && total < FOREVER) {
        if (v->now.postcopy_bound) {
            total = MAX(bound, clock + MIN(v->stop.postcopy, v->stop.safe));
            downtime = tlm_view_stop_time(v, 0);
        } else {
            total = end_by_deadline(v, &downtime);
        }
    }
    if (d->action == TLM_PLAN_POSTCOPY) {
        total = clock + v->stop.postcopy;
        downtime = tlm_view_stop_time(v, 0);
    }
    if (d->action == TLM_PLAN_SWITCHOVER) {
        downtime = v->stop.guess;
        total = clock + v->stop.guess;
        if (bound > 0 && v->link.known &&
            clock + v->stop.least > tlm_bound_latest_end(bound)) {
            d->bound_reachable = false;
        }
    }
    d->predicted_total_ms = to_ms(total);
    d->predicted_downtime_ms = to_ms(downtime);
    d->eta_ms = total >= FOREVER ? 0 : to_ms(MAX(total - clock, 0));
    /* not known if only a cap is known of the link */
    d->smallest_bound_ms = tlm_view_blind(v) ? 0
                                             : to_ms(clock + soonest(v));
    if (bound > 0 && total < FOREVER) {
        d->slack_ms = (int64_t)v->now.bound_ms -
                      (int64_t)d->predicted_total_ms;
    }
    d->downtime_reachable = total < FOREVER && downtime <= v->now.limit;
    if (v->now.converge && bound > 0) {
        d->downtime_reachable &= natural * LIMIT_MARGIN + 2 * course->epoch <=
                                 bound;
    }
    return total;
}
