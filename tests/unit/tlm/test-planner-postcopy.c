/*
 * Unit tests of the TLM planner: the end by post-copy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "planner-rig.h"

static void rig_postcopy(Rig *r, uint64_t ram, uint64_t link, uint64_t hot)
{
    rig_init(r, ram, link);
    rig_hot(r, hot);
    r->params.converge = TLM_PLAN_CONVERGE_POSTCOPY;
}

/* All of what is left at the end of the pass is hot, and more than fits */
static void test_at_end_of_pass(void)
{
    Rig r;

    rig_postcopy(&r, 10 * GB, 300 * MB, GB);
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_POSTCOPY);
    g_assert_cmpint(r.d.reason, ==, TLM_PLAN_REASON_TOO_LONG_TO_STOP);
    g_assert_true(r.s.mtx_done);
    /* The guest was never slowed, and hot pages were not sent */
    g_assert_cmpfloat(r.d.guest_speed, ==, 1);
    g_assert_cmpuint(r.s.dirty_bytes, >=, GB);
    g_assert_cmpuint(r.d.predicted_downtime_ms, <=, 50);
    g_assert_true(r.d.downtime_reachable);
    /* ETA of the phase is by what the link has carried */
    g_assert_cmpfloat(r.d.postcopy_bandwidth, <=, 300 * MB);
    g_assert_cmpfloat(r.d.postcopy_bandwidth, >=, 270 * MB);
    rig_free(&r);
}

/* A small hot set is better stopped and sent: nothing is at risk then */
static void test_fits(void)
{
    Rig r;

    rig_postcopy(&r, 10 * GB, 300 * MB, 20 * MB);
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpint(r.d.reason, ==, TLM_PLAN_REASON_FITS);
    g_assert_true(r.s.mtx_done);
    rig_free(&r);
}

/* 88 MB would just fit in 300 ms: such a stop may well take twice as long */
static void test_fits_barely(void)
{
    Rig r;

    rig_postcopy(&r, 10 * GB, 300 * MB, 75 * MB);
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_POSTCOPY);
    rig_free(&r);
}

/* Asked for in the pass: now, with all that is unsent */
static void test_asked(void)
{
    Rig r;

    rig_postcopy(&r, 10 * GB, 300 * MB, GB);
    run(&r, 20);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    r.s.switchover_requested = true;
    epoch(&r);
    g_assert(r.d.action == TLM_PLAN_POSTCOPY);
    g_assert_cmpint(r.d.reason, ==, TLM_PLAN_REASON_SWITCHOVER_REQUESTED);
    g_assert_false(r.s.mtx_done);
    rig_free(&r);
}

/* Neither into a dead link, nor to a destination that is not ready */
static void test_not_ready(void)
{
    Rig r;

    rig_postcopy(&r, 10 * GB, 300 * MB, GB);
    r.s.can_switchover = false;
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_CONTINUE);
    g_assert_true(r.s.mtx_done);
    g_assert_cmpint(r.d.reason, ==, TLM_PLAN_REASON_DESTINATION_NOT_READY);
    r.s.can_switchover = true;
    epoch(&r);
    g_assert(r.d.action == TLM_PLAN_POSTCOPY);
    rig_free(&r);
}

/* When all of RAM is there, if post-copy has the whole link */
static double end_of_postcopy(const Rig *r)
{
    return end_of_stop(r) + TLM_PLAN_SETTLE_MS / 1000.0;
}

/*
 * The guest rewrites all of its memory, or writes all over it: every bound of
 * one copy and a little is kept.
 */
static void test_bound_kept(void)
{
    static const uint64_t links[] = { 110 * MB, 290 * MB };
    static const TlmPlanConverge converge[] = {
        TLM_PLAN_CONVERGE_NONE, TLM_PLAN_CONVERGE_AUTO,
        TLM_PLAN_CONVERGE_POSTCOPY,
    };

    for (unsigned l = 0; l < ARRAY_SIZE(links); l++) {
        for (unsigned c = 0; c < ARRAY_SIZE(converge); c++) {
            for (unsigned percent = 115; percent <= 200; percent += 5) {
                for (unsigned kind = 0; kind < 3; kind++) {
                    uint64_t ram = 4 * GB;
                    uint64_t copy_ms = ram * 1000 / links[l];
                    Rig r;

                    rig_init(&r, ram, links[l]);
                    if (kind == 0) {
                        rig_hot(&r, ram * 9 / 10);
                    } else if (kind == 1) {
                        r.even_rate = 3 * GB;
                    } else {
                        rig_hot(&r, ram / 4);
                        r.cold_rate = links[l] * 9 / 10;
                    }
                    rig_bound(&r, copy_ms * percent / 100,
                              TLM_PLAN_BOUND_POSTCOPY);
                    r.params.converge = converge[c];
                    run(&r, 100000);
                    g_assert(r.d.action == TLM_PLAN_POSTCOPY ||
                             r.d.action == TLM_PLAN_SWITCHOVER);
                    g_assert_true(r.d.bound_reachable);
                    g_assert_cmpfloat(end_of_postcopy(&r) * 1000, <=,
                                      r.params.time_bound_ms);
                    rig_free(&r);
                }
            }
        }
    }
}

/* It is a last resort: a guest that writes little is not handed over early */
static void test_bound_not_needed(void)
{
    Rig r;

    rig_init(&r, 10 * GB, 300 * MB);
    rig_hot(&r, 20 * MB);
    rig_bound(&r, 40000, TLM_PLAN_BOUND_POSTCOPY);
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_true(r.s.mtx_done);
    rig_free(&r);

    /* Time is left when the pass is over, and the user wants a plain stop */
    rig_init(&r, 10 * GB, 300 * MB);
    rig_hot(&r, GB);
    rig_bound(&r, 60000, TLM_PLAN_BOUND_POSTCOPY);
    run(&r, 1000);
    g_assert(r.d.action == TLM_PLAN_SWITCHOVER);
    g_assert_cmpint(r.d.reason, ==, TLM_PLAN_REASON_PASS_ENDED);
    rig_free(&r);
}

/* The moment is the last one: the guest runs at the source as long as it can */
static void test_bound_last_moment(void)
{
    Rig r;
    double bound = 20;

    rig_init(&r, 4 * GB, 300 * MB);
    r.even_rate = 3 * GB;
    rig_bound(&r, bound * 1000, TLM_PLAN_BOUND_POSTCOPY);
    r.params.converge = TLM_PLAN_CONVERGE_AUTO;
    run(&r, 1000);
    if (r.d.action == TLM_PLAN_POSTCOPY) {
        g_assert_cmpint(r.d.reason, ==,
                        TLM_PLAN_REASON_BOUND_REQUIRES_POSTCOPY);
        g_assert_cmpfloat(end_of_postcopy(&r), >, bound * 0.85);
    }
    g_assert_cmpfloat(end_of_postcopy(&r), <=, bound);
    rig_free(&r);
}

/* max-postcopy-bandwidth is what post-copy gets: it begins earlier */
static void test_bound_capped(void)
{
    double begin[2];

    for (unsigned i = 0; i < 2; i++) {
        Rig r;

        rig_init(&r, 4 * GB, 300 * MB);
        rig_hot(&r, 3 * GB);
        r.cold_rate = 290 * MB;
        rig_bound(&r, 40000, TLM_PLAN_BOUND_POSTCOPY);
        r.params.postcopy_bandwidth = i ? 150 * MB : 0;
        r.params.converge = TLM_PLAN_CONVERGE_POSTCOPY;
        r.s.unsent_bytes = GB;
        run(&r, 1000);
        g_assert(r.d.action == TLM_PLAN_POSTCOPY);
        begin[i] = now(&r);
        if (i) {
            g_assert_cmpfloat(begin[1] + (r.s.unsent_bytes +
                                          r.s.dirty_bytes) / (150.0 * MB),
                              <=, 40);
        }
        rig_free(&r);
    }
    g_assert_cmpfloat(begin[1], <=, begin[0]);
}

/* The dry run: what can be promised, whatever the guest does */
static void test_estimate(void)
{
    TlmPlanParams params = {
        .downtime_limit_ms = 300,
        .converge = TLM_PLAN_CONVERGE_POSTCOPY,
        .bound_action = TLM_PLAN_BOUND_POSTCOPY,
    };
    TlmPlanEstimate e = {
        .total_bytes = 8 * GB,
        .populated_bytes = 8 * GB,
        .working_set_bytes = 8 * GB,
        .window_ms = 1000,
        .dirty_rate = 20 * GB,
        .bandwidth = 200 * MB,
    };
    TlmPlanDecision d;

    /* One copy takes 40 s */
    tlm_planner_estimate(&params, &e, &d);
    g_assert_cmpuint(d.smallest_bound_ms, >=, 40000);
    g_assert_cmpuint(d.smallest_bound_ms, <=, 40000 * 1.1);
    for (unsigned bound = 44000; bound <= 90000; bound += 2000) {
        params.time_bound_ms = bound;
        tlm_planner_estimate(&params, &e, &d);
        g_assert_true(d.bound_reachable);
        g_assert_cmpuint(d.predicted_total_ms, <=, bound);
        g_assert_cmpuint(d.predicted_downtime_ms, <=, 100);
        g_assert_true(d.downtime_reachable);
    }
    params.time_bound_ms = 39000;
    tlm_planner_estimate(&params, &e, &d);
    g_assert_false(d.bound_reachable);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func("/tlm/planner/postcopy/" name, func)
    ADD("at-end-of-pass", test_at_end_of_pass);
    ADD("fits", test_fits);
    ADD("fits-barely", test_fits_barely);
    ADD("asked", test_asked);
    ADD("not-ready", test_not_ready);
    ADD("bound-kept", test_bound_kept);
    ADD("bound-not-needed", test_bound_not_needed);
    ADD("bound-last-moment", test_bound_last_moment);
    ADD("bound-capped", test_bound_capped);
    ADD("estimate", test_estimate);
#undef ADD
    return g_test_run();
}
