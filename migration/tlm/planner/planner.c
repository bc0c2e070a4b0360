/*
 * TLM planner: one step, from sample to decision
 *
 * How it decides and why: docs/devel/migration/tlm/planner.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "forecast.h"
#include "planner.h"
#include "predict.h"
#include "pulse.h"

/* Progress before the end: 1 means that the end has come */
#define PROGRESS_MAX    0.999

/*
 * The bandwidth measured before weighs as much as so many s of the stop stage.
 * With less, the first bytes, which fill buffers, would count as the link.
 * With more, a change of the link would be believed too late (stop-eta).
 */
#define STOP_PRIOR      0.25

/*
 * s; if nobody waits for the end, the guest loses nothing while a destination
 * catches up.  One that has not answered by then is overloaded, or silent.
 */
#define SETTLE_MAX      1.0

struct TlmPlanner {
    TlmPlanClock *clock;
    TlmLink *link;
    TlmGuest *guest;
    TlmPlan *plan;
    double progress;            /* 0..1, never runs backwards */
};

TlmPlanner *tlm_planner_new(void)
{
    TlmPlanner *p = g_new0(TlmPlanner, 1);

    p->clock = tlm_clock_new();
    p->link = tlm_link_new();
    p->guest = tlm_guest_new();
    p->plan = tlm_plan_new();
    return p;
}

void tlm_planner_free(TlmPlanner *p)
{
    if (p) {
        tlm_plan_free(p->plan);
        tlm_guest_free(p->guest);
        tlm_link_free(p->link);
        tlm_clock_free(p->clock);
        g_free(p);
    }
}

/* Learn from the sample; returns true if a cap that bound has been raised */
static bool learn(TlmPlanner *p, TlmPlanView *v)
{
    bool in_pass = !v->now.mtx_done || !tlm_plan_saw_pass_end(p->plan);
    bool raised = tlm_link_learn(p->link, &v->now, in_pass);

    tlm_link_view(p->link, &v->now, &v->link);
    if (raised) {
        tlm_guest_forget_waste(p->guest);
    }
    tlm_guest_learn(p->guest, &v->now, &v->link, tlm_plan_slows(p->plan));
    tlm_guest_view(p->guest, &v->guest);
    return raised;
}

static void predict(TlmPlanner *p, const TlmPlanView *v, TlmPlanDecision *d)
{
    TlmPlanCourse course;
    double total;

    tlm_plan_course(p->plan, v, &course);
    total = tlm_predict(v, &course, d);
    if (total > 0 && total < FOREVER) {
        p->progress = MAX(p->progress,
                          sane(v->now.clock / total, 0, PROGRESS_MAX));
    }
    d->progress = p->progress;
    d->capped = v->link.capped;
    d->bandwidth = v->link.live;
    d->postcopy_bandwidth = tlm_view_postcopy_rate(v);
    d->dirty_rate = v->guest.dirty_rate;
}

/*
 * s that the destination may take to load what is under way, before the guest
 * is stopped.  The link is idle meanwhile: a bound must have that time left.
 * That of post-copy has it in its forecast.
 */
static double settle_time(const TlmPlanView *v, TlmPlanAction action)
{
    double most = v->now.asked || v->now.bound ? TLM_PLAN_SETTLE_MS / MS_PER_S
                                               : SETTLE_MAX;

    if (action == TLM_PLAN_POSTCOPY) {
        return most;
    }
    if (action != TLM_PLAN_SWITCHOVER) {
        return 0;
    }
    return v->now.bound ? sane(v->now.bound - v->now.clock - v->stop.safe, 0,
                               most) : most;
}

void tlm_planner_step(TlmPlanner *p, const TlmPlanParams *params,
                      const TlmPlanSample *sample, TlmPlanDecision *decision)
{
    TlmPlanDecision d = { 0 };
    TlmPlanView v = { 0 };
    bool raised;

    tlm_clock_take_in(p->clock, params, sample, &v.now);
    raised = learn(p, &v);
    tlm_view_complete(&v);
    tlm_view_stop(&v, v.now.dirty + v.meanwhile);
    tlm_forecast_pass(&v);
    if (tlm_plan_decide(p->plan, &v, raised, &d)) {
        tlm_guest_expect(p->guest, tlm_pulse_redirty(&v));
        tlm_guest_view(p->guest, &v.guest);
    }
    predict(p, &v, &d);
    d.settle_ms = to_ms(settle_time(&v, d.action));
    *decision = d;
}

uint64_t tlm_planner_stop_eta_ms(double bandwidth, double time,
                                 double arrived, double left)
{
    double rate = bandwidth > 0
        ? (bandwidth * STOP_PRIOR + arrived) / (STOP_PRIOR + MAX(time, 0))
        : ratio(arrived, time);

    return to_ms(ratio(left, rate));
}
