/*
 * Unit tests of the TLM planner: what it knows of the link, what it predicts,
 * and nonsense
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <fenv.h>
#include <math.h>
#include "planner-rig.h"

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
            r.params.hold = g_rand_boolean(rnd);
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
                g_assert_true(r.s.switchover_requested || !r.params.hold ||
                              r.params.time_bound_ms);
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
    ADD("dead-link", test_dead_link);
    ADD("idle-link-is-alive", test_idle_link_is_alive);
    ADD("zero-pages", test_zero_pages);
    ADD("mixed-pages", test_mixed_pages);
    ADD("compression", test_compression);
    ADD("switchover-bandwidth", test_switchover_bandwidth);
    ADD("cap-changes", test_cap_changes);
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
    return g_test_run();
}
