/*
 * Unit tests of the TLM planner: decisions, predictions, nonsense
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <fenv.h>
#include <math.h>
#include "planner/planner.h"

#define MS 1000000LL
#define S  1000000000LL
#define MB 1000000ULL
#define GB 1000000000ULL
#define MIB (1024 * 1024ULL)

/* A guest and a link in a few numbers; one epoch at a time */
typedef struct {
    TlmPlanner *p;
    TlmPlanParams params;
    TlmPlanSample s;
    TlmPlanDecision d;
    uint64_t link;              /* bytes/s */
    uint64_t hot;               /* bytes, all written to in each epoch */
    uint64_t cold_rate;         /* bytes/s; each hits a page sent before */
    double zero;                /* share of the unsent pages */
    bool bursts;                /* what the link carries beyond a cap shows */
    bool started;
    double progress;
} Rig;

static void rig_init(Rig *r, uint64_t ram, uint64_t link)
{
    memset(r, 0, sizeof(*r));
    r->p = tlm_planner_new();
    r->link = link;
    r->params.downtime_limit_ms = 300;
    r->s.total_bytes = r->s.unsent_bytes = ram;
    r->s.can_switchover = true;
    r->d.epoch_ms = 100;
    r->d.send_settled = true;
}

static void rig_free(Rig *r)
{
    tlm_planner_free(r->p);
}

static void rig_hot(Rig *r, uint64_t hot)
{
    r->hot = hot;
    r->s.unsent_bytes -= hot;
    r->s.dirty_bytes = r->s.hot_bytes = hot;
}

static void check_sane(const Rig *r)
{
    const TlmPlanDecision *d = &r->d;

    g_assert_cmpfloat(d->guest_speed, >=, 0);
    g_assert_cmpfloat(d->guest_speed, <=, 1);
    g_assert_cmpfloat(d->progress, >=, r->progress);
    g_assert_cmpfloat(d->progress, <=, 1);
    g_assert_cmpfloat(d->bandwidth, >=, 0);
    /* as far as they can be counted in a uint64_t */
    g_assert_cmpfloat(d->bandwidth, <=, 1e15);
    g_assert_cmpfloat(d->dirty_rate, >=, 0);
    g_assert_cmpfloat(d->dirty_rate, <=, 1e15);
    g_assert_cmpuint(d->epoch_ms, >=, 1);
    g_assert_cmpuint(d->epoch_ms, <=, 10000);
    g_assert_nonnull(tlm_plan_reason_str(d->reason));
    g_assert_cmpuint(d->predicted_total_ms, <=, 1000000000000000000ULL);
    g_assert(d->action == TLM_PLAN_CONTINUE ||
             d->action == TLM_PLAN_SWITCHOVER ||
             d->action == TLM_PLAN_CANCEL);
}

/* Feed what @r->s says */
static void step(Rig *r)
{
    r->progress = r->d.progress;
    r->started = true;
    tlm_planner_step(r->p, &r->params, &r->s, &r->d);
    check_sane(r);
}

/* Let an epoch pass as the last decision says, and feed it */
static TlmPlanAction epoch(Rig *r)
{
    int64_t ns = r->d.epoch_ms * MS;
    uint64_t full = r->link * r->d.epoch_ms / 1000;
    uint64_t cap = r->params.max_bandwidth * r->d.epoch_ms / 1000;
    uint64_t can = cap ? MIN(full, cap) : full;
    uint64_t settled = r->s.dirty_bytes - r->s.hot_bytes;
    uint64_t sent = 0, covered = 0, zero = 0, n, again;
    double speed = r->started ? r->d.guest_speed : 1;

    n = MIN(settled, can / 2);
    settled -= n;
    sent = covered = n;

    n = MIN(r->s.unsent_bytes, (can - sent) / (1 - MIN(r->zero, 0.999)));
    r->s.unsent_bytes -= n;
    covered += n;
    zero = n * r->zero;
    sent += n - zero;
    r->s.mtx_done = !r->s.unsent_bytes;

    n = MIN(settled, can - sent);
    settled -= n;
    sent += n;
    covered += n;
    if (r->d.send_hot) {
        n = MIN(r->s.hot_bytes, can - sent);
        r->s.hot_bytes -= n;
        sent += n;
        covered += n;
    }
    r->s.idle_ns = ns - (double)ns * sent / MAX(can, 1);
    r->s.held_ns = (double)ns * (full - can) / MAX(full, 1);
    r->s.burst_bytes = r->bursts && can < full ? 2 * MB : 0;
    r->s.burst_ns = r->s.burst_bytes / (r->link / 1e9);

    /* the guest writes; the sync finds it */
    n = r->hot * (speed == 1 ? 1 : MIN(speed * 10 * r->d.epoch_ms / 100, 1));
    r->s.dirtied_bytes = n;
    r->s.hot_bytes = MAX(r->s.hot_bytes, n);
    again = r->cold_rate * speed * r->d.epoch_ms / 1000;
    again = MIN(again, r->s.total_bytes - r->s.unsent_bytes - settled -
                       r->s.hot_bytes);
    r->s.dirtied_bytes += again;
    r->s.dirty_bytes = settled + r->s.hot_bytes + again;

    r->s.sent_bytes = sent;
    r->s.sent_pages_bytes = covered;
    r->s.zero_bytes = zero;
    r->s.epoch_ns = ns;
    r->s.sync_ns = MS;
    r->s.guest_speed = speed;
    r->s.now_ns += ns + MS;
    step(r);
    return r->d.action;
}

/* Epochs until the decision is not to go on; at most @max */
static unsigned run(Rig *r, unsigned max)
{
    unsigned n = 0;

    while (n < max && epoch(r) == TLM_PLAN_CONTINUE) {
        n++;
    }
    return n;
}

static double now(const Rig *r)
{
    return (double)r->s.now_ns / S;
}

/* The slides' TLM: the live stage ends with the pass, and not before */
static void test_none(void)
{
    Rig r;

    rig_init(&r, 4 * GB, GB);
    rig_hot(&r, GB);
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_true(r.s.mtx_done);
    g_assert_cmpfloat(now(&r), <, 3.5);
    g_assert_cmpfloat(r.d.guest_speed, ==, 1);
    g_assert_false(r.d.send_hot);
    /* the hot set takes a second */
    g_assert_cmpuint(r.d.predicted_downtime_ms, >, 950);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <, 1150);
    rig_free(&r);
}

/* A hot set that fits in the limit: no throttling, over at once */
static void test_small_hot_set(void)
{
    Rig r;

    rig_init(&r, 4 * GB, GB);
    rig_hot(&r, 100 * MB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_true(r.s.mtx_done);
    g_assert_cmpfloat(now(&r), <, 4.5);
    g_assert_cmpfloat(r.d.guest_speed, ==, 1);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 300);
    g_assert_true(r.d.downtime_reachable);
    rig_free(&r);
}

/* What the kernel has yet to send takes its part of the downtime */
static void test_queue(void)
{
    uint64_t left[2], downtime[2];
    Rig r;

    for (int i = 0; i < 2; i++) {
        rig_init(&r, 4 * GB, GB);
        rig_hot(&r, 200 * MB);
        r.s.queued_bytes = i * 100 * MB;
        epoch(&r);
        epoch(&r);
        r.s.switchover_requested = true;
        g_assert(epoch(&r) == TLM_PLAN_SWITCHOVER);
        downtime[i] = r.d.predicted_downtime_ms;
        rig_free(&r);

        rig_init(&r, 4 * GB, GB);
        rig_hot(&r, 200 * MB);
        r.params.converge = TLM_PLAN_CONVERGE_AUTO;
        r.s.queued_bytes = i * 100 * MB;
        run(&r, 1000);
        g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
        g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 300);
        left[i] = r.s.unsent_bytes + r.s.dirty_bytes;
        rig_free(&r);
    }
    g_assert_cmpuint(downtime[1] - downtime[0], >=, 99);
    g_assert_cmpuint(downtime[1] - downtime[0], <=, 101);
    g_assert_cmpuint(left[0], >=, 200 * MB);
    g_assert_cmpuint(left[1], <, 200 * MB);
}

/* A hot set that does not: throttled once, hard, until it fits */
static void test_throttle(void)
{
    Rig r;
    unsigned n = 0;

    rig_init(&r, 4 * GB, GB);
    rig_hot(&r, 2 * GB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    while (r.d.guest_speed == 1 || !n++) {
        g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
        g_assert_cmpfloat(now(&r), <, 4);
    }
    g_assert_true(r.s.mtx_done);
    g_assert_cmpfloat(r.d.guest_speed, <=, 0.1);
    g_assert_true(r.d.send_hot);
    while (epoch(&r) == TLM_PLAN_CONTINUE) {
        g_assert_cmpfloat(r.d.guest_speed, <=, 0.2);
        g_assert_true(r.d.send_hot);
        g_assert_cmpfloat(now(&r), <, 10);
    }
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 300);
    rig_free(&r);
}

/* The smallest pulse dirties more than the link carries: a full pause */
static void test_pause(void)
{
    Rig r;
    unsigned n;

    rig_init(&r, 4 * GB, 50 * MB);
    rig_hot(&r, 2 * GB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    r.s.unsent_bytes = 0;
    r.s.mtx_done = true;
    /* long before it would be called stuck */
    for (n = 0; n < 15 && (n < 2 || r.d.guest_speed > 0); n++) {
        /* however slow the guest is, all that is sent is dirtied again */
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
        r.s.epoch_ns = r.d.epoch_ms * MS;
        r.s.now_ns += r.s.epoch_ns;
        r.s.sent_bytes = 5 * MB;
        r.s.sent_pages_bytes = 5 * MB;
        r.s.dirtied_bytes = GB;
        r.s.guest_speed = n ? r.d.guest_speed : 1;
        step(&r);
    }
    g_assert_cmpfloat(r.d.guest_speed, ==, 0);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    g_assert_true(r.d.send_hot);
    rig_free(&r);
}

/* Nothing helps, not even a pause: it still ends */
static void test_no_progress(void)
{
    Rig r;
    unsigned n;

    rig_init(&r, 4 * GB, 50 * MB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    r.s.unsent_bytes = 0;
    r.s.dirty_bytes = r.s.hot_bytes = 2 * GB;
    r.s.mtx_done = true;
    for (n = 0; n < 300 && r.d.action == TLM_PLAN_CONTINUE; n++) {
        r.s.epoch_ns = r.d.epoch_ms * MS;
        r.s.now_ns += r.s.epoch_ns;
        r.s.sent_bytes = r.s.sent_pages_bytes = 5 * MB;
        r.s.dirtied_bytes = 2 * GB;
        r.s.guest_speed = n ? r.d.guest_speed : 1;
        step(&r);
    }
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    rig_free(&r);
}

/* Settled pages shrink by themselves: the guest keeps its full speed */
static void test_slow_writer(void)
{
    Rig r;

    rig_init(&r, 4 * GB, GB);
    r.cold_rate = 100 * MB;
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    while (epoch(&r) == TLM_PLAN_CONTINUE) {
        g_assert_cmpfloat(r.d.guest_speed, ==, 1);
        g_assert_cmpfloat(now(&r), <, 4.8);
    }
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 300);
    rig_free(&r);
}

/* The deadline ends the live stage, in time for what is left */
static void test_deadline(void)
{
    Rig r;
    double end;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 2 * GB);
    r.cold_rate = 900 * MB;             /* nearly all is sent in vain */
    r.params.time_bound_ms = 15000;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_false(r.s.mtx_done);
    end = now(&r) + (r.s.unsent_bytes + r.s.dirty_bytes) / (double)r.link;
    g_assert_cmpfloat(end, <=, 15.0);
    g_assert_cmpfloat(end, >, 14.0);
    g_assert_true(r.d.bound_reachable);
    rig_free(&r);
}

/* An idle guest loses nothing by staying live, however tight the bound */
static void test_tight_but_idle(void)
{
    Rig r;

    rig_init(&r, 10 * GB, GB);
    r.params.time_bound_ms = 10600;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_true(r.s.mtx_done);
    g_assert_cmpuint(r.d.predicted_total_ms, <=, 10600);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 100);
    rig_free(&r);
}

/* The bound is moved while the migration runs: both ways */
static void test_bound_changes(void)
{
    Rig r;
    double end;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, GB);
    r.cold_rate = 900 * MB;
    run(&r, 30);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    g_assert_cmpint(r.d.slack_ms, ==, 0);

    r.params.time_bound_ms = 100000;
    epoch(&r);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    g_assert_true(r.d.bound_reachable);
    g_assert_cmpint(r.d.slack_ms, >, 0);

    r.params.time_bound_ms = 15000;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    end = now(&r) + (r.s.unsent_bytes + r.s.dirty_bytes) / (double)r.link;
    g_assert_cmpfloat(end, <=, 15.0 * 1.03 + 0.05);
    rig_free(&r);

    /* a bound that has already passed: at once */
    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 5 * GB);
    r.cold_rate = 900 * MB;
    run(&r, 30);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    r.params.time_bound_ms = 1;
    epoch(&r);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_false(r.d.bound_reachable);
    g_assert_cmpint(r.d.slack_ms, <, 0);
    rig_free(&r);

    /* the same where it must not be overrun, however little is known */
    for (unsigned i = 1; i < 10; i++) {
        rig_init(&r, 10 * GB, GB);
        rig_hot(&r, 5 * GB);
        r.params.bound_action = TLM_PLAN_BOUND_CANCEL;
        run(&r, i);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
        r.params.time_bound_ms = 1;
        epoch(&r);
        g_assert(r.d.action == TLM_PLAN_CANCEL);
        g_assert_false(r.d.bound_reachable);
        rig_free(&r);
    }
}

/* Out of reach even with the guest stopped: said early, acted upon */
static void test_bound_unreachable(void)
{
    Rig r;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 9 * GB);
    r.params.time_bound_ms = 5000;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    /* the clean gigabyte costs nothing; not a moment longer */
    g_assert_cmpfloat(now(&r), <, 1.2);
    g_assert_false(r.d.bound_reachable);
    g_assert_cmpuint(r.d.smallest_bound_ms, >, 9500);
    g_assert_cmpuint(r.d.smallest_bound_ms, <, 11500);
    rig_free(&r);

    rig_init(&r, 10 * GB, GB);
    r.params.time_bound_ms = 5000;
    r.params.bound_action = TLM_PLAN_BOUND_CANCEL;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_CANCEL);
    g_assert_cmpfloat(now(&r), <, 1);
    g_assert_cmpfloat(r.d.guest_speed, ==, 1);
    g_assert_false(r.d.bound_reachable);
    g_assert_cmpuint(r.d.smallest_bound_ms, >, 9500);
    g_assert_cmpuint(r.d.smallest_bound_ms, <, 10500);
    rig_free(&r);

    /* cancelled too where the guest would otherwise be stopped for it */
    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 9 * GB);
    r.cold_rate = 900 * MB;
    r.params.time_bound_ms = 5000;
    r.params.bound_action = TLM_PLAN_BOUND_CANCEL;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_CANCEL);
    g_assert_cmpfloat(now(&r), <, 1);
    rig_free(&r);

    /* reachable: neither said nor done */
    rig_init(&r, 10 * GB, GB);
    r.params.time_bound_ms = 12000;
    r.params.bound_action = TLM_PLAN_BOUND_CANCEL;
    while (epoch(&r) == TLM_PLAN_CONTINUE) {
        g_assert_true(r.d.bound_reachable);
    }
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    rig_free(&r);
}

/* The link loses bandwidth: the planner notices within a second */
static void test_bandwidth_drops(void)
{
    Rig r;
    double end;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, GB);
    run(&r, 20);
    g_assert_cmpfloat(r.d.bandwidth, >, 0.95 * GB);
    g_assert_cmpfloat(r.d.bandwidth, <, 1.05 * GB);
    r.link = GB / 4;
    run(&r, 5);
    g_assert_cmpfloat(r.d.bandwidth, <, 0.3 * GB);
    g_assert_cmpuint(r.d.predicted_total_ms, >, 30000);
    rig_free(&r);

    /* and keeps a bound that is still within reach */
    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, GB);
    r.cold_rate = 200 * MB;
    r.params.time_bound_ms = 45000;
    run(&r, 20);
    r.link = GB / 4;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    end = now(&r) + (r.s.unsent_bytes + r.s.dirty_bytes) / (double)r.link;
    g_assert_cmpfloat(end, <=, 45.0 * 1.03 + 0.05);
    rig_free(&r);
}

/* With a bound, throttling starts early enough to keep it and the limit */
static void test_bound_and_limit(void)
{
    Rig r;
    double end;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 4 * GB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    r.params.time_bound_ms = 12500;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    end = (double)(r.s.unsent_bytes + r.s.dirty_bytes) / r.link;
    g_assert_cmpfloat(end, <=, 0.3);
    g_assert_cmpfloat(now(&r) + end, <=, 12.5);
    rig_free(&r);
}

/* The same, but waiting for the end of the pass would be too late */
static void test_throttle_for_bound(void)
{
    Rig r;
    double end;

    rig_init(&r, 20 * GB, GB);
    rig_hot(&r, GB);
    r.cold_rate = 400 * MB;
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    r.params.time_bound_ms = 26000;
    while (r.d.guest_speed == 1 || !r.started) {
        g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
    }
    g_assert_false(r.s.mtx_done);
    /* no earlier than necessary */
    g_assert_cmpfloat(now(&r), >, 5);
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    end = (double)(r.s.unsent_bytes + r.s.dirty_bytes) / r.link;
    g_assert_cmpfloat(end, <=, 0.3);
    g_assert_cmpfloat(now(&r) + end, <=, 26.0);
    rig_free(&r);
}

/* Nearly all that is sent is dirtied again: no use waiting for the pass */
static void test_futile_pass(void)
{
    Rig r;

    rig_init(&r, 20 * GB, GB);
    rig_hot(&r, 4 * GB);
    r.cold_rate = 900 * MB;
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    while (r.d.guest_speed == 1 || !r.started) {
        g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
        g_assert_cmpfloat(now(&r), <, 5);
    }
    g_assert_false(r.s.mtx_done);
    rig_free(&r);
}

/* A burst is over soon: no reason to slow the guest for the rest of a pass */
static void test_burst_in_pass(void)
{
    Rig r;

    rig_init(&r, 100 * GB, GB);
    rig_hot(&r, GB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    while (!r.s.mtx_done) {
        bool burst = now(&r) > 50 && now(&r) < 51.5;

        r.cold_rate = burst ? 3 * GB : 0;
        g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
        if (!r.s.mtx_done) {
            g_assert_cmpfloat(r.d.guest_speed, ==, 1);
        }
    }
    rig_free(&r);
}

/* dtx rests while most of what it sends comes back, and only then */
static void test_dtx_rests(void)
{
    unsigned rested[2] = { 0 }, i;

    for (i = 0; i < 2; i++) {
        Rig r;

        rig_init(&r, 50 * GB, GB);
        r.cold_rate = i ? 300 * MB : 10 * MB;
        while (now(&r) < 20) {
            g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
            g_assert_false(r.s.mtx_done);
            rested[i] += !r.d.send_settled;
        }
        rig_free(&r);
    }
    g_assert_cmpuint(rested[0], ==, 0);
    g_assert_cmpuint(rested[1], >, 100);
}

/* The user asks; the destination must be ready, the link alive */
static void test_switchover_requested(void)
{
    Rig r;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, GB);
    run(&r, 5);
    r.s.switchover_requested = true;
    r.s.can_switchover = false;
    g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
    r.s.can_switchover = true;
    g_assert(epoch(&r) == TLM_PLAN_SWITCHOVER);
    g_assert_cmpuint(r.d.predicted_downtime_ms, >, 8000);
    rig_free(&r);
}

/* The destination is not ready: nothing makes the planner stop the guest */
static void test_not_ready(void)
{
    Rig r;
    unsigned i;

    for (i = 0; i < 2; i++) {
        rig_init(&r, GB, GB);
        rig_hot(&r, 500 * MB);
        r.params.time_bound_ms = 1500;
        r.params.converge = i;
        r.s.can_switchover = false;
        g_assert_cmpuint(run(&r, 100), ==, 100);
        r.s.can_switchover = true;
        run(&r, 2);
        g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
        rig_free(&r);
    }
}

/* It is not slowed while it has to wait for the destination */
static void test_not_ready_full_speed(void)
{
    Rig r;
    unsigned i, full = 0;

    rig_init(&r, 4 * GB, GB);
    rig_hot(&r, 2 * GB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    r.s.can_switchover = false;
    for (i = 0; i < 200; i++) {
        epoch(&r);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
        if (r.d.reason == TLM_PLAN_REASON_DESTINATION_NOT_READY) {
            g_assert_cmpfloat(r.d.guest_speed, ==, 1);
            full++;
        }
    }
    g_assert_cmpuint(full, >, 0);
    r.s.can_switchover = true;
    run(&r, 200);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 300);
    rig_free(&r);
}

/* The user changes his mind: no reason to throttle any more */
static void test_released(void)
{
    Rig r;
    unsigned i, n;

    /* a bound that required it, taken away, or moved, in mid-pass */
    for (i = 0; i < 3; i++) {
        rig_init(&r, 20 * GB, GB);
        rig_hot(&r, 6 * GB);
        r.cold_rate = 500 * MB;
        r.params.converge = TLM_PLAN_CONVERGE_AUTO;
        r.params.time_bound_ms = 24000;
        for (n = 0; n < 500 && (!n || r.d.guest_speed == 1); n++) {
            epoch(&r);
            g_assert(r.d.action == TLM_PLAN_CONTINUE);
        }
        g_assert_cmpfloat(r.d.guest_speed, <, 0.5);
        g_assert_false(r.s.mtx_done);
        if (i == 2) {
            r.params.converge = TLM_PLAN_CONVERGE_NONE;
            r.params.time_bound_ms = 0;
        } else {
            r.params.time_bound_ms = i ? 90000 : 0;
        }
        epoch(&r);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
        g_assert_cmpfloat(r.d.guest_speed, ==, 1);
        rig_free(&r);
    }
}

/* Nothing fits in the limit: then as little as can be */
static void test_impossible_limit(void)
{
    Rig r;

    rig_init(&r, 4 * GB, GB);
    rig_hot(&r, GB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    r.params.downtime_limit_ms = 1;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpfloat(now(&r), <, 4.8);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <, 100);
    g_assert_false(r.d.downtime_reachable);
    rig_free(&r);
}

/* The pass is over before anything was sent, but the link is known */
static void test_out_of_reach_at_once(void)
{
    Rig r;

    for (unsigned i = 0; i < 2; i++) {
        rig_init(&r, 4 * GB, GB);
        rig_hot(&r, 4 * GB);
        r.params.switchover_bandwidth = GB;
        r.params.time_bound_ms = 2000;
        r.params.bound_action = i;
        run(&r, 100);
        g_assert(r.d.action == (i ? TLM_PLAN_CANCEL : TLM_PLAN_SWITCHOVER));
        g_assert_false(r.d.bound_reachable);
        g_assert_cmpuint(r.d.smallest_bound_ms, >=, 4000);
        g_assert_cmpfloat(now(&r), <, 0.5);
        rig_free(&r);
    }
}

/*
 * A little waste in each epoch adds up: a bound that could be kept by
 * stopping in time does not end as one that could not.
 */
static void test_cancel_drift(void)
{
    Rig r;

    for (unsigned percent = 1; percent < 8; percent++) {
        rig_init(&r, 60 * GB, GB);
        r.cold_rate = percent * 10 * MB;
        r.params.time_bound_ms = 60800;
        r.params.bound_action = TLM_PLAN_BOUND_CANCEL;
        run(&r, 5000);
        g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
        g_assert_cmpuint(r.d.predicted_total_ms, <=, 60800 * 1.01 + 20);
        rig_free(&r);
    }
}

/* Nothing gets through: the guest stays alive whatever the deadline says */
static void test_dead_link(void)
{
    Rig r;
    unsigned i;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 2 * GB);
    r.params.time_bound_ms = 14000;
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    run(&r, 20);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);

    r.link = 0;
    for (i = 0; i < 300; i++) {
        /* work was there, nothing was sent */
        r.s.epoch_ns = r.d.epoch_ms * MS;
        r.s.now_ns += r.s.epoch_ns + MS;
        r.s.idle_ns = 0;
        r.s.sent_bytes = r.s.sent_pages_bytes = r.s.zero_bytes = 0;
        r.s.guest_speed = r.d.guest_speed;
        step(&r);
        if (i > 5) {
            g_assert(r.d.action == TLM_PLAN_CONTINUE);
            g_assert_cmpfloat(r.d.guest_speed, ==, 1);
        }
    }
    r.s.switchover_requested = true;
    step(&r);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);

    /* it comes back: the bound has passed, so what is asked for is done */
    r.link = GB;
    r.s.switchover_requested = false;
    run(&r, 200);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    rig_free(&r);
}

/* No work, as with a hot set that is held back, is not a dead link */
static void test_idle_link_is_alive(void)
{
    Rig r;
    unsigned i;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 2 * GB);
    run(&r, 5);
    for (i = 0; i < 20; i++) {
        r.s.epoch_ns = r.s.idle_ns = 100 * MS;
        r.s.now_ns += 101 * MS;
        r.s.sent_bytes = r.s.sent_pages_bytes = 0;
        step(&r);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
    }
    r.s.switchover_requested = true;
    step(&r);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    rig_free(&r);
}

/* Zero pages say nothing about the link */
static void test_zero_pages(void)
{
    Rig r;
    unsigned i;

    rig_init(&r, 16 * GB, GB);
    for (i = 0; i < 5; i++) {
        r.s.epoch_ns = 100 * MS;
        r.s.now_ns += 101 * MS;
        r.s.unsent_bytes -= GB;
        r.s.sent_pages_bytes = r.s.zero_bytes = GB;
        r.s.sent_bytes = 2 * MB;
        step(&r);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
    }
    /* 11 GB left at 10 GB/s; the link is not thought to do 20 MB/s */
    g_assert_cmpuint(r.d.predicted_total_ms, >, 1400);
    g_assert_cmpuint(r.d.predicted_total_ms, <, 2200);
    /* the same without being told which pages were zero */
    rig_free(&r);
    rig_init(&r, 16 * GB, GB);
    for (i = 0; i < 5; i++) {
        r.s.epoch_ns = 100 * MS;
        r.s.now_ns += 101 * MS;
        r.s.unsent_bytes -= GB;
        r.s.sent_pages_bytes = GB;
        r.s.sent_bytes = 2 * MB;
        step(&r);
    }
    g_assert_cmpuint(r.d.predicted_total_ms, >, 1400);
    g_assert_cmpuint(r.d.predicted_total_ms, <, 2200);
    rig_free(&r);
}

/* Half of RAM is zero: what is left of it costs half */
static void test_mixed_pages(void)
{
    Rig r;
    double total;

    rig_init(&r, 20 * GB, GB);
    r.zero = 0.5;
    run(&r, 50);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    total = r.d.predicted_total_ms / 1000.0;
    g_assert_cmpfloat(total, >, 9.5);
    g_assert_cmpfloat(total, <, 10.8);
    run(&r, 1000);
    g_assert_cmpfloat(fabs(total - now(&r)), <, 0.5);
    rig_free(&r);
}

/* Compression is known from the first pages on */
static void test_compression(void)
{
    Rig r;
    unsigned i;

    rig_init(&r, 100 * GB, GB);
    r.params.time_bound_ms = 40000;
    r.params.bound_action = TLM_PLAN_BOUND_CANCEL;
    for (i = 0; i < 10; i++) {
        r.s.epoch_ns = 100 * MS;
        r.s.now_ns += 101 * MS;
        r.s.sent_bytes = 100 * MB;
        r.s.sent_pages_bytes = 400 * MB;
        r.s.zero_bytes = 4 * MB;
        r.s.unsent_bytes -= 400 * MB;
        step(&r);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
        g_assert_true(r.d.bound_reachable);
    }
    g_assert_cmpuint(r.d.predicted_total_ms, >, 23000);
    g_assert_cmpuint(r.d.predicted_total_ms, <, 28000);
    rig_free(&r);
}

/* The switchover's bandwidth is not that of the live stage, if it is set */
static void test_switchover_bandwidth(void)
{
    Rig r;

    rig_init(&r, 10 * GB, 100 * MB);
    rig_hot(&r, 2 * GB);
    r.params.max_bandwidth = 100 * MB;
    run(&r, 10);
    g_assert_cmpuint(r.d.predicted_downtime_ms, >, 19000);
    r.params.switchover_bandwidth = 2 * GB;
    run(&r, 1);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <, 1200);
    /* 10 GB at 2 GB/s, from now on */
    g_assert_cmpuint(r.d.smallest_bound_ms, <, 7500);
    rig_free(&r);
}

/* Lowering the cap lowers what is counted on, at once */
static void test_cap_changes(void)
{
    Rig r;

    rig_init(&r, 10 * GB, GB);
    run(&r, 20);
    g_assert_cmpfloat(r.d.bandwidth, >, 0.9 * GB);
    r.params.max_bandwidth = 100 * MB;
    step(&r);
    g_assert_cmpfloat(r.d.bandwidth, <=, 100 * MB);
    rig_free(&r);
}

static double end_of_stop(const Rig *r)
{
    return now(r) + (r->s.unsent_bytes + r->s.dirty_bytes) / (double)r->link;
}

static void rig_bound(Rig *r, uint64_t bound_ms, TlmPlanBoundAction action)
{
    r->params.time_bound_ms = bound_ms;
    r->params.bound_action = action;
}

/*
 * A crawl for 3 s, then no cap: at the crawl the bound is out of reach, but
 * the crawl says nothing of the link.
 */
static void test_cap_lifted(void)
{
    for (unsigned i = 0; i < 4; i++) {
        Rig r;

        rig_init(&r, 256 * MB, 300 * MB);
        rig_hot(&r, 16 * MB);
        rig_bound(&r, 15000, i & 1);
        r.params.converge = i >> 1;
        r.params.max_bandwidth = MB;
        while (now(&r) < 3) {
            g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
            g_assert_true(r.d.bound_reachable);
            g_assert_true(now(&r) < 0.2 || r.d.capped);
            g_assert_cmpfloat(r.d.guest_speed, ==, 1);
            /* what is only an upper limit is not called the smallest */
            g_assert_true(now(&r) < 0.2 || !r.d.smallest_bound_ms);
        }
        r.params.max_bandwidth = 0;
        while (epoch(&r) == TLM_PLAN_CONTINUE) {
            g_assert_true(r.d.bound_reachable);
            g_assert_cmpfloat(r.d.guest_speed, ==, 1);
        }
        g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
        g_assert_true(r.s.mtx_done);
        g_assert_false(r.d.capped);
        g_assert_cmpfloat(now(&r), <, 4.5);
        g_assert_cmpfloat(r.d.bandwidth, >, 250 * MB);
        rig_free(&r);
    }
}

/* The guest was slowed for a bound that the cap alone made hard to keep */
static void test_cap_lifted_releases(void)
{
    Rig r;
    unsigned n;

    rig_init(&r, 4 * GB, GB);
    rig_hot(&r, GB);
    r.cold_rate = 100 * MB;
    r.bursts = true;
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    r.params.max_bandwidth = 200 * MB;
    rig_bound(&r, 20000, TLM_PLAN_BOUND_COMPLETE);
    for (n = 0; n < 200 && (!n || r.d.guest_speed == 1); n++) {
        g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
    }
    g_assert_cmpfloat(r.d.guest_speed, <, 0.5);
    g_assert_false(r.s.mtx_done);
    r.params.max_bandwidth = 0;
    g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
    g_assert_cmpfloat(r.d.guest_speed, ==, 1);
    rig_free(&r);
}

/* A cap all along: how does it end, and when? */
typedef struct {
    const char *name;
    uint64_t ram, link, hot;
    uint64_t cap;
    bool bursts, converge;
    uint64_t bound_ms;
    TlmPlanBoundAction bound_action;
    /* what must come of it; times in s, 0: any */
    bool cancelled;             /* only then is it called out of reach */
    bool capped;
    double from, to;            /* the live stage ends */
    double stop;                /* takes less than that */
    double end;                 /* of all */
    uint64_t smallest_from, smallest_to;
} CapCase;

static const CapCase cap_cases[] = {
    /* too low for bursts: live as long as a guess allows */
    { "low", 268 * MB, 300 * MB, .cap = 20 * MIB, .bound_ms = 12000,
      .capped = true, .from = 10, .end = 12 },
    { "low-cancel", 268 * MB, 300 * MB, .cap = 20 * MIB, .bound_ms = 12000,
      .bound_action = TLM_PLAN_BOUND_CANCEL,
      .capped = true, .from = 10, .end = 12 },
    /* QEMU's default: bursts show that the link carries more */
    { "default", 700 * MB, 1200 * MB, .cap = 128 * MIB, .bursts = true,
      .bound_ms = 3000, .capped = true, .from = 1.5, .end = 3 },
    { "default-cancel", 700 * MB, 1200 * MB, .cap = 128 * MIB, .bursts = true,
      .bound_ms = 3000, .bound_action = TLM_PLAN_BOUND_CANCEL,
      .capped = true, .from = 1.5, .end = 3 },
    /*
     * A third of the link, and a limit that cannot be kept with it in time:
     * 3.6 s if it were stopped as late as that allows at full speed
     */
    { "converge", 1180 * MB, 300 * MB, 1000 * MB, .cap = 100 * MB,
      .bursts = true, .converge = true, .bound_ms = 8000,
      .capped = true, .stop = 3, .end = 8 * 1.03 },
    /* twice of what bursts have shown would not do: sure enough */
    { "sure", 10 * GB, 300 * MB, .cap = 100 * MB, .bursts = true,
      .bound_ms = 10000, .bound_action = TLM_PLAN_BOUND_CANCEL,
      .cancelled = true, .capped = true, .to = 2,
      .smallest_from = 30000, .smallest_to = 37000 },
    /* without bursts nothing is: stopped, but not in the first half */
    { "hope", 10 * GB, 300 * MB, .cap = 100 * MB, .bound_ms = 10000,
      .capped = true, .from = 4.5, .to = 5.2 },
    /* a link that is slower than the cap is no secret */
    { "does-not-bind", 10 * GB, 118 * MB, .cap = 128 * MIB,
      .bound_ms = 20000, .bound_action = TLM_PLAN_BOUND_CANCEL,
      .cancelled = true, .to = 3, .smallest_from = 80000 },
};

static void test_cap(const void *data)
{
    const CapCase *c = data;
    Rig r;

    rig_init(&r, c->ram, c->link);
    rig_hot(&r, c->hot);
    rig_bound(&r, c->bound_ms, c->bound_action);
    r.bursts = c->bursts;
    r.params.converge = c->converge;
    r.params.max_bandwidth = c->cap;
    while (epoch(&r) == TLM_PLAN_CONTINUE) {
        g_assert_true(r.d.bound_reachable || c->cancelled);
        g_assert_true(r.d.slack_ms >= -100 || !c->converge);
        g_assert_cmpfloat(now(&r), <, 100);
    }
    g_assert(r.d.action == (c->cancelled ? TLM_PLAN_CANCEL
                                         : TLM_PLAN_SWITCHOVER));
    g_assert_true(r.d.bound_reachable != c->cancelled);
    g_assert_true(r.d.capped == c->capped);
    g_assert_cmpfloat(now(&r), >, c->from);
    g_assert_cmpfloat(now(&r), <, c->to ? c->to : HUGE_VAL);
    g_assert_cmpfloat(end_of_stop(&r) - now(&r), <,
                      c->stop ? c->stop : HUGE_VAL);
    g_assert_cmpfloat(end_of_stop(&r), <=, c->end ? c->end : HUGE_VAL);
    g_assert_cmpuint(r.d.smallest_bound_ms, >=, c->smallest_from);
    g_assert_cmpuint(r.d.smallest_bound_ms, <=,
                     c->smallest_to ? c->smallest_to : UINT64_MAX);
    rig_free(&r);
}

/* As long as twice of what bursts show would do, the guest is not stopped */
static void test_cap_known(void)
{
    Rig r;

    rig_init(&r, 4500 * MB, 300 * MB);
    rig_bound(&r, 10000, TLM_PLAN_BOUND_CANCEL);
    r.bursts = true;
    r.params.max_bandwidth = 100 * MB;
    while (now(&r) < 2.5) {
        g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
        g_assert_true(r.d.bound_reachable);
    }
    rig_free(&r);
}

/* Without bursts nothing is sure until the bound has passed */
static void test_cap_unknown(void)
{
    Rig r;

    rig_init(&r, 10 * GB, 300 * MB);
    rig_bound(&r, 10000, TLM_PLAN_BOUND_CANCEL);
    r.params.max_bandwidth = 100 * MB;
    r.s.can_switchover = false;
    while (now(&r) < 9.5) {
        g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
        g_assert_true(r.d.bound_reachable);
        g_assert_cmpfloat(r.d.guest_speed, ==, 1);
    }
    rig_free(&r);
}

/* It has passed, because the user has changed it: that is sure */
static void test_cap_bound_passed(void)
{
    for (unsigned i = 0; i < 2; i++) {
        Rig r;

        rig_init(&r, 10 * GB, 300 * MB);
        rig_bound(&r, 3600000, i);
        r.params.max_bandwidth = 10 * MB;
        while (now(&r) < 2) {
            g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
        }
        r.params.time_bound_ms = 1;
        epoch(&r);
        g_assert_false(r.d.bound_reachable);
        if (i == TLM_PLAN_BOUND_CANCEL) {
            g_assert(r.d.action == TLM_PLAN_CANCEL);
        }
        rig_free(&r);
    }
}

/* The host is busy for a moment: what bursts have shown is still true */
static void test_cap_stall(void)
{
    Rig r;

    rig_init(&r, 700 * MB, 1200 * MB);
    rig_bound(&r, 8000, TLM_PLAN_BOUND_CANCEL);
    r.bursts = true;
    r.params.max_bandwidth = 80 * MB;
    run(&r, 20);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    r.link = 5 * MB;
    r.d.epoch_ms = 2500;
    g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
    g_assert_true(r.d.bound_reachable);
    r.link = 1200 * MB;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpfloat(end_of_stop(&r), <=, 8);
    rig_free(&r);
}

/* Two bursts of five come when the host has no time for them */
static void test_cap_busy_host(void)
{
    for (uint64_t mb = 600; mb <= 900; mb += 2) {
        Rig r;

        rig_init(&r, mb * MB, 300 * MB);
        rig_bound(&r, 9000, TLM_PLAN_BOUND_COMPLETE);
        r.bursts = true;
        r.cold_rate = 30 * MB;
        r.params.max_bandwidth = 100 * MB;
        r.params.epoch_ms = 250;
        while (now(&r) < 5) {
            r.link = now(&r) > 3.5 && now(&r) < 4 ? 120 * MB : 300 * MB;
            g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
        }
        rig_free(&r);
    }
}

/* One slow second is no slow link, as long as the bound is far */
static void test_slow_start(void)
{
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t slow = 10; slow <= 40; slow += 2) {
            Rig r;

            rig_init(&r, GB, slow * MB);
            rig_hot(&r, 750 * MB);
            rig_bound(&r, 30000, i);
            r.params.converge = TLM_PLAN_CONVERGE_AUTO;
            r.cold_rate = 100 * MB;
            r.params.epoch_ms = 700;
            epoch(&r);
            epoch(&r);
            g_assert(r.d.action == TLM_PLAN_CONTINUE);
            r.link = 115 * MB;
            run(&r, 1000);
            g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
            g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 300);
            g_assert_true(r.d.bound_reachable);
            rig_free(&r);
        }
    }
}

/* Nor is another one in mid-pass, with 24 s left */
static void test_slow_second(void)
{
    for (unsigned i = 0; i < 2; i++) {
        Rig r;

        rig_init(&r, 2 * GB, 115 * MB);
        rig_hot(&r, 750 * MB);
        rig_bound(&r, 30000, i);
        r.params.converge = TLM_PLAN_CONVERGE_AUTO;
        r.params.epoch_ms = 350;
        run(&r, 10);
        r.link = 30 * MB;
        run(&r, 4);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
        r.link = 115 * MB;
        run(&r, 1000);
        g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
        g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 300);
        g_assert_true(r.d.bound_reachable);
        rig_free(&r);
    }
}

static void test_epoch_length(void)
{
    Rig r;
    unsigned i;

    rig_init(&r, 10 * GB, GB);
    r.params.epoch_ms = 500;
    for (i = 0; i < 5; i++) {
        epoch(&r);
        g_assert_cmpuint(r.d.epoch_ms, ==, 500);
    }
    r.params.epoch_ms = 1;
    epoch(&r);
    g_assert_cmpuint(r.d.epoch_ms, ==, 20);
    r.params.epoch_ms = UINT64_MAX;
    epoch(&r);
    g_assert_cmpuint(r.d.epoch_ms, ==, 10000);
    rig_free(&r);

    /* a multiple of what a sync costs */
    rig_init(&r, 10 * GB, GB);
    epoch(&r);
    g_assert_cmpuint(r.d.epoch_ms, ==, 100);
    for (i = 0; i < 30; i++) {
        r.s.now_ns += 200 * MS;
        r.s.epoch_ns = 100 * MS;
        r.s.sync_ns = 50 * MS;
        step(&r);
    }
    g_assert_cmpuint(r.d.epoch_ms, >=, 450);
    g_assert_cmpuint(r.d.epoch_ms, <=, 1000);
    rig_free(&r);
}

/* Half-way, total and downtime are known within 15 % */
static void check_prediction(Rig *r)
{
    double total = 0, downtime = 0, end, stop;

    while (epoch(r) == TLM_PLAN_CONTINUE) {
        if (r->d.progress >= 0.5 && !total) {
            total = r->d.predicted_total_ms / 1000.0;
            downtime = r->d.predicted_downtime_ms / 1000.0;
            g_assert_cmpfloat(fabs(now(r) + r->d.eta_ms / 1000.0 - total), <,
                              0.01);
        }
        g_assert_cmpfloat(now(r), <, 100);
    }
    stop = (double)(r->s.unsent_bytes + r->s.dirty_bytes) / r->link + 0.01;
    end = now(r) + stop;
    g_assert_cmpfloat(fabs(total - end), <, 0.15 * end);
    g_assert_cmpfloat(fabs(downtime - stop), <, 0.15 * MAX(stop, 0.1));
    rig_free(r);
}

static void test_prediction(void)
{
    Rig r;

    rig_init(&r, 10 * GB, GB);
    check_prediction(&r);

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, GB);
    check_prediction(&r);

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 3 * GB);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    check_prediction(&r);

    rig_init(&r, 10 * GB, GB);
    r.zero = 0.7;
    check_prediction(&r);

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, GB);
    r.params.max_bandwidth = 2 * GB;
    r.params.time_bound_ms = 60000;
    check_prediction(&r);
}

static void test_clock_jumps(void)
{
    Rig r;
    uint64_t before;

    /* back: the guest is not stopped for it, and time goes on */
    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, GB);
    r.params.time_bound_ms = 20000;
    run(&r, 10);
    before = r.d.predicted_total_ms;
    r.s.now_ns -= 3600 * S;
    g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
    g_assert_cmpuint(r.d.predicted_total_ms, >, before - 500);
    g_assert_cmpuint(r.d.predicted_total_ms, <, before + 500);
    run(&r, 20);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    g_assert_cmpfloat(r.d.bandwidth, >, 0.9 * GB);
    rig_free(&r);

    /* ahead: bandwidth is still that of the epoch */
    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, GB);
    run(&r, 10);
    r.s.now_ns += 3600 * S;
    g_assert(epoch(&r) == TLM_PLAN_CONTINUE);
    g_assert_cmpfloat(r.d.bandwidth, >, 0.9 * GB);
    g_assert_cmpfloat(r.d.bandwidth, <, 1.1 * GB);
    rig_free(&r);

    /* no time at all */
    rig_init(&r, 10 * GB, GB);
    run(&r, 10);
    r.s.epoch_ns = 0;
    r.s.sync_ns = 0;
    step(&r);
    step(&r);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    g_assert_cmpfloat(r.d.bandwidth, <, 1.1 * GB);
    rig_free(&r);
}

/* Whatever comes in, what goes out is within its range */
static void test_nonsense(void)
{
    static const uint64_t numbers[] = {
        0, 1, 4096, 1000000, 1ULL << 31, 1ULL << 40, 24ULL << 40,
        INT64_MAX, UINT64_MAX - 1, UINT64_MAX
    };
    static const double speeds[] = { 0, 1, -1, 2, 0.5, NAN, INFINITY,
                                     -INFINITY, G_MINDOUBLE };
    GRand *rnd = g_rand_new_with_seed(7);
    unsigned i, j;

    /* a division by zero ends the test */
    feclearexcept(FE_DIVBYZERO);
    feenableexcept(FE_DIVBYZERO);
#define PICK(a) ((a)[g_rand_int_range(rnd, 0, G_N_ELEMENTS(a))])
    for (i = 0; i < 3000; i++) {
        Rig r;

        rig_init(&r, PICK(numbers), 1);
        for (j = 0; j < 20; j++) {
            r.params.time_bound_ms = PICK(numbers);
            r.params.downtime_limit_ms = PICK(numbers);
            r.params.max_bandwidth = PICK(numbers);
            r.params.switchover_bandwidth = PICK(numbers);
            r.params.epoch_ms = PICK(numbers);
            r.params.converge = g_rand_int_range(rnd, 0, 2);
            r.params.bound_action = g_rand_int_range(rnd, 0, 2);
            r.s = (TlmPlanSample) {
                .now_ns = (int64_t)PICK(numbers),
                .epoch_ns = (int64_t)PICK(numbers),
                .sync_ns = (int64_t)PICK(numbers),
                .idle_ns = (int64_t)PICK(numbers),
                .hot_ns = (int64_t)PICK(numbers),
                .total_bytes = PICK(numbers),
                .unsent_bytes = PICK(numbers),
                .dirty_bytes = PICK(numbers),
                .hot_bytes = PICK(numbers),
                .dirtied_bytes = PICK(numbers),
                .sent_bytes = PICK(numbers),
                .sent_pages_bytes = PICK(numbers),
                .zero_bytes = PICK(numbers),
                .device_bytes = PICK(numbers),
                .queued_bytes = PICK(numbers),
                .held_ns = (int64_t)PICK(numbers),
                .burst_bytes = PICK(numbers),
                .burst_ns = (int64_t)PICK(numbers),
                .guest_speed = PICK(speeds),
                .mtx_done = g_rand_boolean(rnd),
                .can_switchover = g_rand_boolean(rnd),
                .switchover_requested = g_rand_int_range(rnd, 0, 10) == 0,
            };
            step(&r);
            if (r.d.action == TLM_PLAN_SWITCHOVER) {
                g_assert_true(r.s.can_switchover);
            }
            if (r.d.action == TLM_PLAN_CANCEL) {
                g_assert(r.params.bound_action == TLM_PLAN_BOUND_CANCEL);
                g_assert_cmpuint(r.params.time_bound_ms, >, 0);
            }
            if (r.params.converge == TLM_PLAN_CONVERGE_NONE && j == 0) {
                g_assert_cmpfloat(r.d.guest_speed, ==, 1);
            }
        }
        rig_free(&r);
    }
#undef PICK
    fedisableexcept(FE_DIVBYZERO);
    g_rand_free(rnd);
    tlm_planner_free(NULL);
}

/* The coordinator asks before it has sent anything: no reason to stop */
static void test_first_sample(void)
{
    Rig r;
    unsigned i;

    for (i = 0; i < 4; i++) {
        rig_init(&r, 10 * GB, GB);
        rig_hot(&r, GB);
        r.params.time_bound_ms = 1000;
        r.params.converge = i & 1;
        r.params.bound_action = i >> 1;
        r.s.now_ns = r.s.epoch_ns = r.s.idle_ns = r.s.sync_ns = 5 * MS;
        r.s.dirtied_bytes = GB;
        r.s.guest_speed = 1;
        step(&r);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
        g_assert_cmpuint(r.d.predicted_total_ms, ==, 0);
        g_assert_cmpuint(r.d.eta_ms, ==, 0);
        g_assert_cmpfloat(r.d.progress, ==, 0);
        g_assert_true(r.d.bound_reachable);
        rig_free(&r);
    }
}

/* The stop stage counts what has arrived, not what channels were given */
static void test_stop_eta(void)
{
    const double bw = 100e6;

    /* at once: as measured before */
    g_assert_cmpuint(tlm_planner_stop_eta_ms(bw, 0, 0, 50e6), ==, 500);
    /* the channels have just filled up */
    g_assert_cmpuint(tlm_planner_stop_eta_ms(bw, 0.01, 1e6, 99e6), ==, 990);
    /* nothing is owed, but it is still on its way */
    g_assert_cmpuint(tlm_planner_stop_eta_ms(bw, 1, 90e6, 10e6), >, 90);
    /* a link that carries twice as much, or nothing any more */
    g_assert_cmpuint(tlm_planner_stop_eta_ms(bw, 2, 400e6, 200e6), <, 1100);
    g_assert_cmpuint(tlm_planner_stop_eta_ms(bw, 2, 0, 210e6), >, 15000);
    /* nothing measured: by what arrives; not known while nothing does */
    g_assert_cmpuint(tlm_planner_stop_eta_ms(0, 1, 50e6, 50e6), ==, 1000);
    g_assert_cmpuint(tlm_planner_stop_eta_ms(0, 1, 0, 50e6), ==, 0);
    g_assert_cmpuint(tlm_planner_stop_eta_ms(0, 0, 0, 50e6), ==, 0);
}

/* Each reason has words of its own */
static void test_reasons(void)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (TlmPlanReason i = 0; i < TLM_PLAN_REASON__MAX; i++) {
        const char *text = tlm_plan_reason_str(i);

        g_assert_nonnull(text);
        g_assert_true(g_hash_table_add(seen, (char *)text));
    }
}

/* A migration of nothing */
static void test_empty(void)
{
    Rig r;

    rig_init(&r, 0, GB);
    epoch(&r);
    epoch(&r);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    rig_free(&r);
}

static void test_estimate(void)
{
    TlmPlanParams params = { .downtime_limit_ms = 300 };
    TlmPlanEstimate e = {
        .total_bytes = 16 * GB,
        .populated_bytes = 8 * GB,
        .working_set_bytes = 2 * GB,
        .window_ms = 1000,
        .dirty_rate = 10 * GB,
        .bandwidth = GB,
    };
    TlmPlanDecision d;

    /* a hot set of 2 GB beside 6 GB that are only read */
    tlm_planner_estimate(&params, &e, &d);
    g_assert_cmpuint(d.predicted_total_ms, >, 7800);
    g_assert_cmpuint(d.predicted_total_ms, <, 9000);
    g_assert_cmpuint(d.predicted_downtime_ms, >, 1900);
    g_assert_cmpuint(d.predicted_downtime_ms, <, 2300);
    g_assert_cmpuint(d.smallest_bound_ms, >, 7900);
    g_assert_cmpuint(d.smallest_bound_ms, <, 8300);
    g_assert_false(d.downtime_reachable);
    g_assert_true(d.bound_reachable);

    params.converge = TLM_PLAN_CONVERGE_AUTO;
    tlm_planner_estimate(&params, &e, &d);
    g_assert_true(d.downtime_reachable);
    g_assert_cmpuint(d.predicted_downtime_ms, <=, 300);
    g_assert_cmpuint(d.predicted_total_ms, <, 9500);

    params.time_bound_ms = 7000;
    tlm_planner_estimate(&params, &e, &d);
    g_assert_false(d.bound_reachable);
    g_assert_false(d.downtime_reachable);
    g_assert_cmpint(d.slack_ms, <, 0);

    params.time_bound_ms = 20000;
    tlm_planner_estimate(&params, &e, &d);
    g_assert_true(d.bound_reachable);
    g_assert_true(d.downtime_reachable);
    g_assert_cmpint(d.slack_ms, >, 0);

    /* nothing known, nothing said */
    e = (TlmPlanEstimate) { .total_bytes = GB, .populated_bytes = GB };
    tlm_planner_estimate(&params, &e, &d);
    g_assert_cmpuint(d.predicted_total_ms, ==, 0);
    g_assert_cmpuint(d.smallest_bound_ms, ==, 0);
    g_assert_false(d.bound_reachable);

    e = (TlmPlanEstimate) {
        UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX,
        UINT64_MAX, UINT64_MAX
    };
    tlm_planner_estimate(&params, &e, &d);
    g_assert_cmpfloat(d.bandwidth, >=, 0);
    g_assert_cmpfloat(d.dirty_rate, <=, 1e20);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func("/tlm/planner/" name, func)
    ADD("none", test_none);
    ADD("small-hot-set", test_small_hot_set);
    ADD("queue", test_queue);
    ADD("throttle", test_throttle);
    ADD("pause", test_pause);
    ADD("no-progress", test_no_progress);
    ADD("slow-writer", test_slow_writer);
    ADD("deadline", test_deadline);
    ADD("tight-but-idle", test_tight_but_idle);
    ADD("bound-changes", test_bound_changes);
    ADD("bound-unreachable", test_bound_unreachable);
    ADD("bandwidth-drops", test_bandwidth_drops);
    ADD("bound-and-limit", test_bound_and_limit);
    ADD("throttle-for-bound", test_throttle_for_bound);
    ADD("futile-pass", test_futile_pass);
    ADD("burst-in-pass", test_burst_in_pass);
    ADD("dtx-rests", test_dtx_rests);
    ADD("switchover-requested", test_switchover_requested);
    ADD("not-ready", test_not_ready);
    ADD("not-ready-full-speed", test_not_ready_full_speed);
    ADD("released", test_released);
    ADD("impossible-limit", test_impossible_limit);
    ADD("out-of-reach-at-once", test_out_of_reach_at_once);
    ADD("cancel-drift", test_cancel_drift);
    ADD("dead-link", test_dead_link);
    ADD("idle-link-is-alive", test_idle_link_is_alive);
    ADD("zero-pages", test_zero_pages);
    ADD("mixed-pages", test_mixed_pages);
    ADD("compression", test_compression);
    ADD("switchover-bandwidth", test_switchover_bandwidth);
    ADD("cap-changes", test_cap_changes);
    ADD("cap-lifted", test_cap_lifted);
    ADD("cap-lifted-releases", test_cap_lifted_releases);
    ADD("cap-known", test_cap_known);
    ADD("cap-unknown", test_cap_unknown);
    ADD("cap-bound-passed", test_cap_bound_passed);
    ADD("cap-busy-host", test_cap_busy_host);
    ADD("cap-stall", test_cap_stall);
    ADD("slow-start", test_slow_start);
    ADD("slow-second", test_slow_second);
    ADD("epoch-length", test_epoch_length);
    ADD("prediction", test_prediction);
    ADD("clock-jumps", test_clock_jumps);
    ADD("nonsense", test_nonsense);
    ADD("first-sample", test_first_sample);
    ADD("stop-eta", test_stop_eta);
    ADD("reasons", test_reasons);
    ADD("empty", test_empty);
    ADD("estimate", test_estimate);
#undef ADD
    for (unsigned i = 0; i < G_N_ELEMENTS(cap_cases); i++) {
        g_autofree char *path = g_strconcat("/tlm/planner/cap/",
                                            cap_cases[i].name, NULL);

        g_test_add_data_func(path, &cap_cases[i], test_cap);
    }
    return g_test_run();
}
