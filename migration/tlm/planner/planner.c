/*
 * TLM planner: when to stop the guest, how much to slow it, what to predict
 *
 * How it decides and why: docs/planner.md.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "planner-int.h"

#define NS_PER_S 1e9

#define BW_TRUSTED      3       /* samples until it can be relied on */

TlmPlanner *tlm_planner_new(void)
{
    TlmPlanner *p = g_new0(TlmPlanner, 1);

    p->duty = 1;
    p->wire_per_byte = 1;
    p->speed = 1;
    p->epoch = EPOCH_MIN;
    p->bias = 1;
    p->credit = WASTE_CREDIT;
    p->yield = 1;
    p->yield_least = 1;
    p->yields[0] = p->yields[1] = p->yields[2] = 1;
    return p;
}

void tlm_planner_free(TlmPlanner *p)
{
    g_free(p);
}

/* Fill @n from the sample; whatever is wrong in it becomes harmless */
static void take_in(TlmPlanner *p, const TlmPlanSample *s, TlmPlanNow *n)
{
    double step, sync, idle;

    n->total = s->total_bytes;
    n->unsent = MIN(s->unsent_bytes, s->total_bytes);
    n->dirty = MIN(s->dirty_bytes, s->total_bytes);
    n->hot = MIN(s->hot_bytes, n->dirty);
    n->fresh = MIN(s->dirtied_bytes, s->total_bytes);
    n->window = s->hot_ns > 0 ? s->hot_ns / NS_PER_S : HOT_WINDOW;
    n->device = (double)s->device_bytes + s->queued_bytes;
    n->sent = s->sent_bytes;
    n->covered = s->sent_pages_bytes;
    n->zero = MIN(s->zero_bytes, s->sent_pages_bytes);
    p->zero_counted |= s->zero_bytes > 0;
    if (!p->zero_counted && !s->mtx_done && n->sent < n->covered / 2) {
        /* not counted: zero pages, or compression; the former is safer */
        n->zero = n->covered - n->sent;
    }
    n->speed = s->guest_speed == s->guest_speed ?
               sane(s->guest_speed, 0, 1) : 1;
    if (n->speed < SPEED_MIN / 10) {
        n->speed = 0;
    }
    n->epoch = sane(s->epoch_ns / NS_PER_S, 0, 3600);
    sync = sane(s->sync_ns / NS_PER_S, 0, 3600);
    idle = sane(s->idle_ns / NS_PER_S, 0, n->epoch);
    n->held = sane(s->held_ns / NS_PER_S, 0, n->epoch);
    n->burst = s->burst_ns > 0 ?
               MIN(s->burst_bytes / (s->burst_ns / NS_PER_S), FOREVER) : 0;
    n->active = n->epoch - idle;
    idle -= sync;
    if (idle > 0 && idle < n->active / 6) {
        /* the channels were writing what had been queued before */
        n->active += idle;
    }

    step = n->epoch + sync;
    if (p->samples ? s->now_ns >= p->last_now_ns : s->now_ns >= 0) {
        double since = ((double)s->now_ns - (double)p->last_now_ns) /
                       NS_PER_S;

        p->clock += since;
        /* a jump is no time in which bytes could have been sent */
        n->dt = since > step * 3 + 1 ? step : MAX(since, n->epoch);
    } else {
        p->clock += step;
        n->dt = step;
    }
    p->clock = MIN(p->clock, FOREVER / 4);
    p->last_now_ns = s->now_ns;
    p->total = n->total;

    smooth(&p->sync, sane(s->sync_ns / NS_PER_S, 0, 60), 1,
           p->samples ? 2 : 0);
    if (n->epoch > 0) {
        smooth(&p->duty, sane(1 - sync / MAX(n->dt, n->epoch), 0.2, 1),
               n->dt, p->samples > 1 ? 1 : 0);
    }
    if (!p->samples) {
        p->owed = n->total;
    }
}

void tlm_planner_step(TlmPlanner *p, const TlmPlanParams *params,
                      const TlmPlanSample *sample, TlmPlanDecision *decision)
{
    TlmPlanDecision d = {
        .action = TLM_PLAN_CONTINUE,
        .guest_speed = 1,
        .send_settled = true,
        .bound_reachable = true,
        .reason = TLM_PLAN_REASON_PASS,
    };
    double owed, again, owed_then, fit;
    TlmPlanForecast f;
    TlmPlanStop stop;
    bool first = !p->samples, trusted, ended = false, waits = false;
    bool cap_raised;
    TlmPlanNow n = { 0 };

    owed = p->owed;
    take_in(p, sample, &n);
    owed = first ? n.total : owed;
    cap_raised = tlm_plan_cap_raised(p, params);
    if (!cap_raised) {
        tlm_plan_learn_bandwidth(p, &n);
    }
    tlm_plan_learn_silence(p, &n);
    tlm_plan_learn_pages(p, &n, !sample->mtx_done || !p->passed);
    tlm_plan_learn_guest(p, &n, first);
    p->samples++;
    trusted = p->bw_samples >= BW_TRUSTED ||
              (p->bw_samples && params->switchover_bandwidth);
    again = MAX(n.unsent + n.dirty - owed + n.covered, 0);

    tlm_plan_release(p, params, cap_raised);
    p->epoch = tlm_plan_epoch_length(p, params, !sample->mtx_done);
    if (p->throttled) {
        tlm_plan_adjust_throttle(p, params, &n, again);
    }
    tlm_plan_forecast(p, params, &n, &f);
    if (!sample->mtx_done) {
        d.send_settled = tlm_plan_dtx_pays(p, params, &n, &f);
    }

    fit = tlm_plan_fitting(p, params, n.device);
    owed_then = n.dirty + tlm_plan_dirtied_meanwhile(p);
    stop.safe = tlm_plan_stop_time(p, params, n.unsent, owed_then, n.device);
    stop.guess = tlm_plan_stop_time_at(
        p, tlm_plan_stop_bandwidth_guess(p, params), n.unsent, owed_then,
        n.device);
    stop.least = tlm_plan_stop_time_at(
        p, tlm_plan_stop_bandwidth_most(p, params), n.unsent, owed_then,
        n.device);

    if (sample->switchover_requested) {
        d.action = TLM_PLAN_SWITCHOVER;
        d.reason = TLM_PLAN_REASON_ASKED_FOR;
        ended = true;
    } else if (params->time_bound_ms) {
        ended = tlm_plan_keep_bound(p, params, &n, &stop, trusted, &d);
    }
    if (!ended && !p->throttled && !sample->mtx_done && trusted &&
        params->converge == TLM_PLAN_CONVERGE_AUTO &&
        tlm_plan_pass_is_futile(p, params, &n, &f, fit)) {
        tlm_plan_throttle(p, params);
        d.send_hot = true;
        d.reason = TLM_PLAN_REASON_PASS_FUTILE;
        ended = true;
    }
    if (!ended && p->throttled && !sample->mtx_done) {
        d.send_hot = true;
        d.reason = TLM_PLAN_REASON_THROTTLED_PASS;
        ended = true;
    }
    if (!ended && sample->mtx_done) {
        if (params->converge == TLM_PLAN_CONVERGE_NONE) {
            d.action = TLM_PLAN_SWITCHOVER;
            d.reason = TLM_PLAN_REASON_PASS_OVER;
        } else {
            tlm_plan_converge(p, params, &n, fit, &d);
        }
    }

    if (d.action == TLM_PLAN_SWITCHOVER) {
        if (!sample->can_switchover) {
            d.action = TLM_PLAN_CONTINUE;
            d.reason = TLM_PLAN_REASON_NOT_READY;
        } else if (tlm_plan_link_dead(p)) {
            d.action = TLM_PLAN_CONTINUE;
            d.reason = TLM_PLAN_REASON_LINK_DEAD;
        }
        if (d.action == TLM_PLAN_CONTINUE) {
            d.send_hot = p->throttled;
            waits = true;
            p->stuck = 0;
            p->least_left = FOREVER;
        }
    }

    /* There is no use in slowing a guest that has to wait for others */
    if (p->throttled && d.action != TLM_PLAN_CANCEL && !tlm_plan_link_dead(p) &&
        !waits) {
        d.guest_speed = p->speed;
    }
    tlm_plan_fill_predictions(p, params, &n, &f, &stop, &d);
    d.epoch_ms = MAX(to_ms(p->epoch), 1);
    d.capped = p->bw_samples && p->held;
    d.bandwidth = tlm_plan_live_bandwidth(p, params);
    d.dirty_rate = p->dirty_rate;
    d.progress = p->progress;
    *decision = d;
}
