/*
 * TLM planner: predictions, also of a migration that has not begun
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "planner-int.h"

#define FORECAST_STEPS  64

/*
 * Without convergence the pass must not end with pages that could have
 * been sent: is it time for dtx to send the @settled ones?
 */
bool tlm_plan_last_sweep_due(const TlmPlanParams *params, double pass_left,
                             double settled, double speed)
{
    return params->converge == TLM_PLAN_CONVERGE_NONE &&
           pass_left * speed < settled;
}

/*
 * Run the live stage forward at full guest speed: clean and unsent pages
 * are hit at the rate that has been measured, those hit not long ago are
 * held back, dtx has half of the link while it has others.
 */
void tlm_plan_forecast(const TlmPlanner *p, const TlmPlanParams *params,
                       const TlmPlanNow *n, TlmPlanForecast *f)
{
    double unsent = n->unsent, dirty = n->dirty, hot = n->hot;
    double bw = tlm_plan_live_bandwidth(p, params) * p->duty;
    double speed = ratio(bw, p->wire_per_byte);
    double cost = tlm_plan_unsent_cost(p, bw);
    double clean = MAX(p->total - unsent - dirty, 0);
    double t = 0, dt, hits;
    unsigned i;

    hot = MIN(hot, dirty);
    if (unsent > 0 && bw <= 0) {
        *f = (TlmPlanForecast) { FOREVER, dirty, hot, 0 };
        return;
    }
    /* shrink by a constant part: few steps for any size */
    dt = unsent * cost / FORECAST_STEPS;
    for (i = 0; i < FORECAST_STEPS * 4 && unsent > p->total * 0.000001;
         i++) {
        double out, in_unsent, in_clean;

        dt = MAX(dt, 0.001);
        hits = tlm_plan_hit_rate(p, clean, unsent, dirty) * p->bias;
        hits = 1 - exp(-hits * dt);
        in_unsent = unsent * hits;
        in_clean = clean * hits;
        unsent -= in_unsent;
        clean -= in_clean;
        dirty += in_unsent + in_clean;
        if (p->work_hits > 0) {
            hot = MAX(MIN(dirty, p->work_set) *
                      (1 - exp(-n->window * p->work_hits)), hot);
            hot = MIN(hot, dirty);
        }
        out = 0;
        if (p->credit > 0 ||
            tlm_plan_last_sweep_due(params, unsent * cost, dirty - hot,
                                    speed)) {
            out = MIN(dirty - hot, speed * dt / 2);
        }
        dirty -= out;
        clean += out;
        out = MIN(unsent, ratio(dt - ratio(out, speed), cost));
        unsent -= out;
        clean += out;
        t += dt;
    }
    f->pass = t;
    f->left = dirty + unsent;
    f->hot = hot;
    f->refill = tlm_plan_hit_rate(p, clean, unsent, dirty) * p->bias * clean;
}

/* Seconds until @left fits, throttled from now on */
double tlm_plan_throttled_time(const TlmPlanner *p, const TlmPlanParams *params,
                               double unsent, double left, double fit)
{
    double bw = tlm_plan_live_bandwidth(p, params) * p->duty;
    double share = THROTTLE_SHARE;

    if (p->throttled && p->speed <= SPEED_MIN) {
        share = ratio(p->pulse * p->speed * p->wire_per_byte, bw);
        share = MIN(share, THROTTLE_SHARE_MAX);
    }

    return ratio((left - MIN(fit, left)) * p->wire_per_byte +
                 unsent * tlm_plan_unsent_cost(p, bw) * bw, bw * (1 - share));
}

/*
 * Seconds until @left fits, at full speed; FOREVER if it never will.
 * @hot is the part that dtx holds back.
 */
double tlm_plan_full_speed_time(const TlmPlanner *p,
                                const TlmPlanParams *params, double left,
                                double hot, double refill, double fit,
                                bool *send_hot)
{
    double speed = ratio(tlm_plan_live_bandwidth(p, params) * p->duty,
                         p->wire_per_byte);
    double t = FOREVER, t2;

    *send_hot = false;
    if (left <= fit) {
        return 0;
    }
    if (hot <= fit && speed > refill) {
        t = ratio(left - fit, speed - refill);
    }
    /*
     * Pages that are hot only because the last epochs came across them
     * may as well be sent: few of them are written to again at once.
     */
    refill = ratio(p->hot_set, p->epoch) + p->cold_rate;
    if (refill * p->epoch <= fit && refill < speed) {
        t2 = ratio(left - fit, speed - refill);
        if (t2 < t) {
            t = t2;
            *send_hot = true;
        }
    }
    return t;
}

/*
 * What tlm_plan_converge() leaves of @fit: the last epoch ends when what is
 * left is expected to fit, and a little later.
 */
static double left_at_end(const TlmPlanner *p, const TlmPlanParams *params,
                          double fit)
{
    double speed = ratio(tlm_plan_live_bandwidth(p, params) * p->duty,
                         p->wire_per_byte);

    return MAX(fit - speed * EPOCH_FLOOR * 0.75, fit / 2);
}

/* Total time if all goes on as it does now; also the downtime */
static double predict(const TlmPlanner *p, const TlmPlanParams *params,
                      const TlmPlanNow *n, const TlmPlanForecast *f,
                      double *downtime)
{
    double fit = tlm_plan_fitting(p, params, n->device);
    double t = p->clock, left, full, slow;
    bool send_hot;

    if (tlm_plan_live_bandwidth(p, params) <= 0) {
        *downtime = FOREVER;
        return FOREVER;
    }
    if (p->throttled) {
        bool mtx_last = n->unsent > n->dirty;

        if (mtx_last) {
            /* dtx is done first, and has little to do until mtx is */
            fit = MIN(fit, p->redirty * p->epoch);
        }
        left = n->unsent + n->dirty;
        t += tlm_plan_throttled_time(p, params, n->unsent, n->dirty, fit);
        if (left > fit) {
            left = mtx_last ? fit : left_at_end(p, params, fit);
        }
        *downtime = tlm_plan_stop_time(p, params, 0, left, n->device);
        return MIN(t + *downtime, FOREVER);
    }
    t += f->pass;
    left = f->left;
    if (params->converge == TLM_PLAN_CONVERGE_AUTO && left > fit) {
        full = tlm_plan_full_speed_time(p, params, left, f->hot, f->refill, fit,
                                        &send_hot);
        slow = tlm_plan_throttled_time(p, params, 0, left, fit);
        t += full <= FULL_SPEED_PATIENCE * slow + p->epoch ? full : slow;
        left = left_at_end(p, params, fit);
    }
    *downtime = tlm_plan_stop_time(p, params, 0, left, n->device);
    return MIN(t + *downtime, FOREVER);
}

void tlm_plan_fill_predictions(TlmPlanner *p, const TlmPlanParams *params,
                               const TlmPlanNow *n, const TlmPlanForecast *f,
                               const TlmPlanStop *stop, TlmPlanDecision *d)
{
    double bound = params->time_bound_ms / MS_PER_S;
    double limit = params->downtime_limit_ms / MS_PER_S;
    double downtime, total, natural;

    total = natural = predict(p, params, n, f, &downtime);
    if (bound > 0 && total > bound && total < FOREVER) {
        /* the deadline ends the live stage earlier, with more left */
        double least = p->clock + stop->guess;

        total = MAX(bound, p->clock + stop->least);
        downtime = MAX(downtime, MIN(stop->guess, total - p->clock));
        if (p->yield > 0 && p->yield < 1 && total > least) {
            downtime = MAX(downtime * 0.5,
                           stop->guess - (total - least) * p->yield /
                           (1 - p->yield));
        }
    }
    if (d->action == TLM_PLAN_SWITCHOVER) {
        downtime = stop->guess;
        total = p->clock + stop->guess;
        if (bound > 0 && tlm_plan_stop_known(p, params) &&
            p->clock + stop->least >
            bound * (1 + BOUND_NOISE_SHARE) + BOUND_NOISE) {
            d->bound_reachable = false;
        }
    }
    d->predicted_total_ms = to_ms(total);
    d->predicted_downtime_ms = to_ms(downtime);
    d->eta_ms = total >= FOREVER ? 0 : to_ms(MAX(total - p->clock, 0));
    /* where a cap is all that is known of the link, this is not known */
    d->smallest_bound_ms = stop->guess < stop->safe
                           ? 0 : to_ms(p->clock + stop->safe);
    if (bound > 0 && total < FOREVER) {
        d->slack_ms = (int64_t)params->time_bound_ms -
                      (int64_t)d->predicted_total_ms;
    }
    d->downtime_reachable = total < FOREVER && downtime <= limit;
    if (params->converge == TLM_PLAN_CONVERGE_AUTO && bound > 0) {
        d->downtime_reachable &= natural * 1.05 + 2 * p->epoch <= bound;
    }

    if (total > 0 && total < FOREVER) {
        p->progress = MAX(p->progress, sane(p->clock / total, 0, 0.999));
    }
}

void tlm_planner_estimate(const TlmPlanParams *params,
                          const TlmPlanEstimate *estimate,
                          TlmPlanDecision *decision)
{
    TlmPlanParams with = *params;
    TlmPlanner *p = tlm_planner_new();
    TlmPlanDecision d = { .guest_speed = 1, .epoch_ms = EPOCH_MIN * MS_PER_S };
    double window = estimate->window_ms / MS_PER_S;
    double ws, rate;
    TlmPlanForecast f;
    TlmPlanStop stop;
    TlmPlanNow n = { 0 };

    if (!with.switchover_bandwidth) {
        with.switchover_bandwidth = estimate->bandwidth;
    }
    p->total = MIN(estimate->populated_bytes, estimate->total_bytes);
    ws = MIN(estimate->working_set_bytes, p->total);
    rate = MAX(estimate->dirty_rate, ratio(ws, window));
    if (window <= 0) {
        rate = estimate->dirty_rate;
    }
    rate = MIN(rate, 1e15);
    /*
     * Written more than once within the window: a hot set.  Written once
     * only: nothing shows where it ends.
     */
    if (rate * window > 1.5 * ws) {
        p->hot_set = ws;
    } else {
        p->cold_rate = rate;
    }
    p->dirty_rate = p->dirty_rate_most = rate;
    p->redirty = p->cold_rate;
    n.total = p->total;
    n.window = HOT_WINDOW;
    n.hot = MIN(p->hot_set + p->cold_rate * n.window, p->total);
    n.dirty = n.hot;
    n.unsent = p->total - n.dirty;
    n.device = estimate->device_bytes;
    stop.safe = tlm_plan_stop_time(p, &with, n.unsent, n.dirty, n.device);
    stop.guess = stop.least = stop.safe;

    tlm_plan_forecast(p, &with, &n, &f);
    tlm_plan_fill_predictions(p, &with, &n, &f, &stop, &d);
    d.bound_reachable = !with.time_bound_ms ||
        (stop.safe < FOREVER && stop.safe <= with.time_bound_ms / MS_PER_S);
    d.bandwidth = tlm_plan_live_bandwidth(p, &with);
    d.dirty_rate = rate;
    d.reason = TLM_PLAN_REASON_ESTIMATE;
    *decision = d;
    tlm_planner_free(p);
}
