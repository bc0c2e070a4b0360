/*
 * TLM planner: how long the rest of the live stage would take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "forecast.h"

/* Steps to run the pass forward: more do not predict better */
#define STEPS           64
/*
 * So many times as many steps at most, as pages become dirty again.  With
 * once, downtimes are predicted half as well (tlm-sim --selftest).
 */
#define STEPS_FACTOR    4
/* s; no step is shorter: the end of the pass is not resolved any further */
#define STEP_MIN        0.001
/* A pass with a smaller part of RAM unsent is over: some pages of 24 GiB */
#define UNSENT_NONE     0.000001

/*
 * If less of the link is useful than YIELD_MIN, it may be better to throttle
 * before mtx is done, as soon as FUTILE_WASTE of the throttled time has been
 * wasted.  With a higher yield going on pays until the bound is near
 * (throttle-for-bound).  Without FUTILE_WASTE a burst of a second slowed the
 * guest for the rest of a pass of an hour (burst-in-pass).  With more of it a
 * guest that writes all over RAM loses what it could have saved (futile-pass).
 */
#define YIELD_MIN       0.35
#define FUTILE_WASTE    0.1

/*
 * The pass of a checkpoint is in vain if so much of what it would still send
 * becomes dirty again.  If nothing does, the pass saves memory, and costs
 * nothing; if all of it does, it is written twice.
 */
#define IN_VAIN         0.5

/*
 * With converge=none the pass must not end with pages that could have been
 * sent.  Is it time for dtx to send the @settled pages, at @rate?
 */
static bool last_sweep_due(const TlmPlanView *v, double pass_left,
                           double settled, double rate)
{
    return !v->now.converge && pass_left * rate < settled;
}

bool tlm_forecast_dtx_pays(const TlmPlanView *v)
{
    return v->guest.credit > 0 ||
           last_sweep_due(v, v->pass.pass, v->now.dirty - v->now.hot,
                          v->epoch_rate);
}

/* Pages of an even working set that were hit within the window are hot */
static double stay_hot(const TlmPlanView *v, double dirty, double hot)
{
    const TlmGuestView *g = &v->guest;

    if (g->work_hits > 0) {
        hot = MAX(MIN(dirty, g->work_set) *
                  (1 - exp(-v->now.window * g->work_hits)), hot);
        hot = MIN(hot, dirty);
    }
    return hot;
}

/*
 * The guest writes to clean and unsent pages at the measured rate.  Pages that
 * it wrote to a moment ago are held back.  While dtx has other pages, it has
 * half of the link.
 */
void tlm_forecast_pass(TlmPlanView *v)
{
    double total = v->now.total, rate = v->mean_rate;
    double unsent = v->now.unsent, dirty = v->now.dirty;
    double hot = MIN(v->now.hot, dirty);
    double cost = tlm_link_unsent_cost(&v->link, v->mean_bandwidth);
    double clean = MAX(total - unsent - dirty, 0);
    double t = 0, dt;
    unsigned i;

    if (unsent > 0 && v->mean_bandwidth <= 0) {
        v->pass = (TlmPassForecast) { FOREVER, dirty, hot, 0 };
        return;
    }
    /* shrink by a constant part: few steps for any size */
    dt = unsent * cost / STEPS;
    for (i = 0; i < STEPS * STEPS_FACTOR && unsent > total * UNSENT_NONE;
         i++) {
        double out, in_unsent, in_clean, hits;

        dt = MAX(dt, STEP_MIN);
        hits = tlm_guest_hit_rate(&v->guest, total, clean, unsent, dirty) *
               v->guest.bias;
        hits = 1 - exp(-hits * dt);
        in_unsent = unsent * hits;
        in_clean = clean * hits;
        unsent -= in_unsent;
        clean -= in_clean;
        dirty += in_unsent + in_clean;
        hot = stay_hot(v, dirty, hot);
        out = 0;
        if (v->guest.credit > 0 ||
            last_sweep_due(v, unsent * cost, dirty - hot, rate)) {
            out = MIN(dirty - hot, rate * dt / 2);
        }
        dirty -= out;
        clean += out;
        out = MIN(unsent, ratio(dt - ratio(out, rate), cost));
        unsent -= out;
        clean += out;
        t += dt;
    }
    v->pass.pass = t;
    v->pass.left = dirty + unsent;
    v->pass.hot = hot;
    v->pass.refill = tlm_guest_hit_rate(&v->guest, total, clean, unsent,
                                        dirty) * v->guest.bias * clean;
}

double tlm_forecast_throttled(const TlmPlanView *v, double share,
                              double unsent, double left, double fit)
{
    double bw = v->mean_bandwidth;

    return ratio((left - MIN(fit, left)) * v->link.wire_per_byte +
                 unsent * tlm_link_unsent_cost(&v->link, bw) * bw,
                 bw * (1 - share));
}

double tlm_forecast_full_speed(const TlmPlanView *v, double epoch, double left,
                               double hot, double refill, bool *send_hot)
{
    double fit = v->fit, rate = v->mean_rate;
    double t = FOREVER, t2;

    *send_hot = false;
    if (left <= fit) {
        return 0;
    }
    if (hot <= fit && rate > refill) {
        t = ratio(left - fit, rate - refill);
    }
    /*
     * Some pages are hot only because the last epochs came across them.
     * They may as well be sent: few of them are written to again at once.
     */
    refill = ratio(v->guest.hot_set, epoch) + v->guest.cold_rate;
    if (refill * epoch <= fit && refill < rate) {
        t2 = ratio(left - fit, rate - refill);
        if (t2 < t) {
            t = t2;
            *send_hot = true;
        }
    }
    return t;
}

bool tlm_forecast_full_speed_pays(double full, double slow, double epoch)
{
    return full <= FULL_SPEED_PATIENCE * slow + epoch;
}

/*
 * If nearly all pages have to be sent again, this may last, or be a burst.  A
 * throttled guest stands nearly still until the end, so wait until a part of
 * that time has been wasted.  A burst of a guest with a small working set never
 * wastes so much, as pages that are dirty already cannot be wasted again.
 */
bool tlm_forecast_futile(const TlmPlanView *v, double epoch)
{
    const TlmPassForecast *f = &v->pass;
    double slow = tlm_forecast_throttled(v, THROTTLE_SHARE, v->now.unsent,
                                         v->now.dirty, v->fit);
    bool send_hot;

    if (!v->link.trusted || v->guest.yield >= YIELD_MIN ||
        v->guest.wasted < FUTILE_WASTE * slow || f->left <= v->fit) {
        return false;
    }
    return tlm_forecast_full_speed(v, epoch, f->left, f->hot, f->refill,
                                   &send_hot) >
           FULL_SPEED_PATIENCE *
           tlm_forecast_throttled(v, THROTTLE_SHARE, 0, f->left, v->fit);
}

/* What is kept in memory is written once, whatever the guest does meanwhile */
bool tlm_forecast_in_vain(const TlmPlanView *v)
{
    double left = v->now.dirty + v->now.unsent;
    double lost = v->pass.left - v->now.dirty;

    return !v->now.hold && v->guest.located && left <= v->now.keep &&
           lost > v->now.unsent * IN_VAIN;
}
