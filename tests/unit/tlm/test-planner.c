/*
 * Unit tests of the TLM planner: how the live stage ends, and what the guest
 * loses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "planner-rig.h"

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

/* Held after the pass, at full speed, until the user asks or the bound does */
static void test_hold(void)
{
    Rig r;

    for (int converge = 0; converge < 2; converge++) {
        rig_init(&r, 4 * GB, GB);
        rig_hot(&r, 2 * GB);
        r.params.converge = converge;
        r.params.hold = true;
        run(&r, 1000);
        g_assert(r.d.action == TLM_PLAN_CONTINUE);
        g_assert(r.d.reason == TLM_PLAN_REASON_HELD);
        g_assert_true(r.s.mtx_done);
        g_assert_cmpfloat(r.d.guest_speed, ==, 1);
        if (converge) {
            rig_bound(&r, (now(&r) + 10) * 1000, TLM_PLAN_BOUND_COMPLETE);
            run(&r, 1000);
            g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
            g_assert(r.d.reason == TLM_PLAN_REASON_BOUND_REQUIRES_STOP);
        } else {
            r.s.switchover_requested = true;
            g_assert(epoch(&r) == TLM_PLAN_SWITCHOVER);
        }
        rig_free(&r);
    }
}

/*
 * A checkpoint of a guest that rewrites most of its RAM: what is kept in memory
 * is written once.  A pass that is of use goes on to its end.
 */
static void test_pass_in_vain(void)
{
    static const struct {
        uint64_t rate;
        uint64_t hot;
        uint64_t keep;
        bool hold;
        TlmPlanReason reason;
    } cases[] = {
        { 3 * GB, 0, 4 * GB, false, TLM_PLAN_REASON_PASS_WASTED },
        { 3 * GB, 0, 2 * GB, false, TLM_PLAN_REASON_PASS_ENDED },
        { 3 * GB, 0, 0, false, TLM_PLAN_REASON_PASS_ENDED },
        { 3 * GB, 0, 4 * GB, true, TLM_PLAN_REASON_HELD },
        { 200 * MB, 0, 4 * GB, false, TLM_PLAN_REASON_PASS_ENDED },
        { 0, GB, 4 * GB, false, TLM_PLAN_REASON_PASS_ENDED },
        { 0, 0, 4 * GB, false, TLM_PLAN_REASON_PASS_ENDED },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Rig r;

        rig_init(&r, 4 * GB, GB);
        r.params.converge = TLM_PLAN_CONVERGE_NONE;
        r.params.keep_bytes = cases[i].keep;
        r.params.hold = cases[i].hold;
        r.even_rate = cases[i].rate;
        rig_hot(&r, cases[i].hot);
        run(&r, 1000);
        g_test_message("%u: %s after %.2f s", i,
                       tlm_plan_reason_str(r.d.reason), now(&r));
        g_assert_cmpint(r.d.reason, ==, cases[i].reason);
        if (r.d.reason == TLM_PLAN_REASON_PASS_WASTED) {
            /* of a pass of four seconds */
            g_assert_cmpfloat(now(&r), <, 0.5);
        }
        rig_free(&r);
    }
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
 * Before the end the destination may be waited for: for a second, or less if
 * somebody waits for the end
 */
static void test_settle(void)
{
    Rig r;

    rig_init(&r, 10 * GB, GB);
    rig_hot(&r, 20 * MB);
    epoch(&r);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    g_assert_cmpuint(r.d.settle_ms, ==, 0);
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpuint(r.d.settle_ms, ==, 1000);
    r.s.switchover_requested = true;
    epoch(&r);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpuint(r.d.settle_ms, ==, TLM_PLAN_SETTLE_MS);
    rig_free(&r);
}

/* A bound is kept: nobody waits for longer than there is time left */
static void test_settle_bound(void)
{
    for (unsigned percent = 100; percent <= 140; percent++) {
        double stop, settle;
        Rig r;

        rig_init(&r, 10 * GB, GB);
        rig_hot(&r, GB);
        r.params.time_bound_ms = 100 * percent;
        run(&r, 1000);
        g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
        stop = end_of_stop(&r);
        settle = r.d.settle_ms / 1000.0;
        g_assert_cmpuint(r.d.settle_ms, <=, TLM_PLAN_SETTLE_MS);
        g_assert_true(!r.d.settle_ms || stop + settle <= percent / 10.0);
        /* ... but as long as that, or nearly */
        g_assert_true(r.d.settle_ms == TLM_PLAN_SETTLE_MS ||
                      stop + settle > percent / 10.0 - 0.1);
        rig_free(&r);
    }
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
    ADD("futile-pass", test_futile_pass);
    ADD("burst-in-pass", test_burst_in_pass);
    ADD("dtx-rests", test_dtx_rests);
    ADD("switchover-requested", test_switchover_requested);
    ADD("hold", test_hold);
    ADD("pass-in-vain", test_pass_in_vain);
    ADD("not-ready", test_not_ready);
    ADD("not-ready-full-speed", test_not_ready_full_speed);
    ADD("released", test_released);
    ADD("impossible-limit", test_impossible_limit);
    ADD("out-of-reach-at-once", test_out_of_reach_at_once);
    ADD("settle", test_settle);
    ADD("settle-bound", test_settle_bound);
#undef ADD
    return g_test_run();
}
