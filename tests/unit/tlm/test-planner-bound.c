/*
 * Unit tests of the TLM planner: what it does to keep a bound
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "planner-rig.h"

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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func("/tlm/planner/" name, func)
    ADD("deadline", test_deadline);
    ADD("tight-but-idle", test_tight_but_idle);
    ADD("bound-changes", test_bound_changes);
    ADD("bound-unreachable", test_bound_unreachable);
    ADD("bandwidth-drops", test_bandwidth_drops);
    ADD("bound-and-limit", test_bound_and_limit);
    ADD("throttle-for-bound", test_throttle_for_bound);
    ADD("cancel-drift", test_cancel_drift);
    ADD("cap-lifted", test_cap_lifted);
    ADD("cap-lifted-releases", test_cap_lifted_releases);
    ADD("cap-known", test_cap_known);
    ADD("cap-unknown", test_cap_unknown);
    ADD("cap-bound-passed", test_cap_bound_passed);
    ADD("cap-busy-host", test_cap_busy_host);
    ADD("cap-stall", test_cap_stall);
    ADD("slow-start", test_slow_start);
    ADD("slow-second", test_slow_second);
#undef ADD
    for (unsigned i = 0; i < G_N_ELEMENTS(cap_cases); i++) {
        g_autofree char *path = g_strconcat("/tlm/planner/cap/",
                                            cap_cases[i].name, NULL);

        g_test_add_data_func(path, &cap_cases[i], test_cap);
    }
    return g_test_run();
}
