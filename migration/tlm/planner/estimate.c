/*
 * TLM planner: predicts a migration that has not begun
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "epoch-length.h"
#include "forecast.h"
#include "predict.h"

/*
 * If the guest wrote its working set so many times within the window, it is a
 * hot set, written again and again.  With less, nothing shows where it ends.
 */
#define REWRITTEN       1.5

/* Learns what the guest does from the measurement in a window */
static void suppose(TlmGuest *g, const TlmPlanEstimate *e, TlmPlanNow *n)
{
    double window = e->window_ms / MS_PER_S;
    double total = MIN(e->populated_bytes, e->total_bytes);
    double ws = MIN(e->working_set_bytes, total);
    double rate, hot = 0, cold = 0;

    rate = window > 0 ? MAX(e->dirty_rate, ratio(ws, window)) : e->dirty_rate;
    rate = MIN(rate, FOREVER);
    if (rate * window > REWRITTEN * ws) {
        hot = ws;
    } else {
        cold = rate;
    }
    tlm_guest_suppose(g, rate, hot, cold);
    tlm_now_suppose(n, total, hot + cold * n->window, e->device_bytes);
    n->skipped = e->total_bytes - total;
}

void tlm_planner_estimate(const TlmPlanParams *params,
                          const TlmPlanEstimate *estimate,
                          TlmPlanDecision *decision)
{
    TlmPlanDecision d = {
        .guest_speed = 1,
        .epoch_ms = EPOCH_MIN * MS_PER_S,
        .reason = TLM_PLAN_REASON_ESTIMATE,
    };
    TlmPlanCourse course = { .share = THROTTLE_SHARE, .epoch = EPOCH_MIN };
    TlmLink *link = tlm_link_new();
    TlmGuest *guest = tlm_guest_new();
    TlmPlanParams with = *params;
    TlmPlanView v;

    if (!with.switchover_bandwidth) {
        with.switchover_bandwidth = estimate->bandwidth;
    }
    tlm_now_at_start(&with, &v.now);
    suppose(guest, estimate, &v.now);
    tlm_link_view(link, &v.now, &v.link);
    tlm_guest_view(guest, &v.guest);
    tlm_view_complete(&v);
    tlm_view_stop(&v, v.now.dirty);
    tlm_forecast_pass(&v);
    tlm_predict(&v, &course, &d);
    d.bound_reachable = !v.now.bound ||
        (v.stop.safe < FOREVER && v.stop.safe <= v.now.bound);
    d.bandwidth = v.link.live;
    d.dirty_rate = v.guest.dirty_rate;
    *decision = d;
    tlm_guest_free(guest);
    tlm_link_free(link);
}
