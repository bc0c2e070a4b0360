/*
 * Test of the engine, with its threads and without QEMU
 *
 * The real mtx, dtx, ledger, epochs, pacer and planner migrate the RAM of
 * fake-ram.c, which vCPUs write to, by the lanes of fake-sink.c.  No page may
 * be in flight twice between two flushes, and source and destination must be
 * equal at the end; whatever breaks, all threads must end.  And what is
 * broken on purpose must be found.
 *
 * TLM_ENGINE_RUNS says how many migrations each test has; TLM_ENGINE_SEED
 * repeats one of them (how threads meet is not repeated).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "engine/engine-int.h"
#include "fake-ram.h"
#include "fake-sink.h"

#define PAGE_BITS 12
#define BATCH_MAX 128
/* Of a fault that may need luck to show */
#define RUNS_PER_BREAK 300
#define RUNS_DEFAULT 1000
/* The planner needs some 0.5 s for a migration, however small */
#define PLANNER_SHARE 50

typedef enum Outcome {
    GOOD,
    DIFFERS,                    /* pages differ at the end */
    TWICE,                      /* a page was in flight twice */
    DOUBTED,                    /* the engine has found a contradiction */
    FAILED,                     /* with an error */
    CANCELLED,
} Outcome;

typedef struct Scenario {
    FakeBreak broken;
    FakeFault fault;
    bool cancel;
    bool planner;               /* decides, not chance */
    bool checkpoint;            /* the guest goes on when it was copied */
} Scenario;

typedef struct Outsider {
    TlmEngine *engine;
    unsigned after_us;
    bool cancel;
    int end;                    /* atomic */
} Outsider;

/* Looks on all the time, wants the coordinator, and may cancel */
static void *outsider_thread(void *opaque)
{
    Outsider *o = opaque;
    int64_t begin_us = g_get_monotonic_time();
    bool acted = false;

    while (!__atomic_load_n(&o->end, __ATOMIC_RELAXED)) {
        TlmEngineCounters c;

        tlm_engine_counters(o->engine, &c);
        g_assert_cmpuint(c.passed, <=, c.total);
        g_assert_cmpuint(c.owed, <=, c.total);
        if (!acted && g_get_monotonic_time() - begin_us >= o->after_us) {
            acted = true;
            if (o->cancel) {
                tlm_engine_cancel(o->engine);
            } else {
                tlm_engine_interrupt(o->engine);
            }
        }
        g_usleep(100);
    }
    return NULL;
}

/* A page that is owed but not dirty will be forgotten by the ledger */
static void lose_unsent(TlmEngine *e)
{
    e->c.ram_ops->lock(e->c.ram);
    for (unsigned i = 0; i < e->blocks->len; i++) {
        TlmLedgerBlock *b = tlm_engine_block(e, i);

        if (b->unsent[0] & ~b->dirty[0]) {
            b->unsent[0] &= b->dirty[0];
            break;
        }
    }
    e->c.ram_ops->unlock(e->c.ram);
}

/* A page that has gone in this epoch is to go again */
static void take_back(TlmEngine *e, const FakeSink *sink)
{
    e->c.ram_ops->lock(e->c.ram);
    for (unsigned i = 0; i < e->blocks->len; i++) {
        if (sink->flight[i][0] == sink->flushes) {
            tlm_engine_block(e, i)->dirty[0] |= 1;
        }
    }
    e->c.ram_ops->unlock(e->c.ram);
}

/* What the coordinator does next.  False: stop the guest. */
typedef bool (*Decide)(TlmEngine *e, FakeRam *ram, GRand *rand,
                       TlmPlanner *planner, int64_t start_ns,
                       TlmEpoch *epoch);

static bool decide_by_chance(TlmEngine *e, FakeRam *ram, GRand *rand,
                             TlmPlanner *planner, int64_t start_ns,
                             TlmEpoch *epoch)
{
    *epoch = (TlmEpoch) {
        .ns = g_rand_int_range(rand, 50, 3000) * (int64_t)SCALE_US,
        .linger = g_rand_boolean(rand),
        .dtx = g_rand_int_range(rand, 0, 4),
        .hot = g_rand_boolean(rand),
        .walk_end = g_rand_int_range(rand, 0, 3) ? e->total_pages :
                    g_rand_int_range(rand, 0, e->total_pages + 1),
    };
    tlm_engine_heed(e);
    return g_rand_int_range(rand, 0, 8);
}

static bool decide_by_planner(TlmEngine *e, FakeRam *ram, GRand *rand,
                              TlmPlanner *planner, int64_t start_ns,
                              TlmEpoch *epoch)
{
    static const TlmPlanParams params = {
        .time_bound_ms = 1000,
        .downtime_limit_ms = 1,
        .epoch_ms = 20,
        .converge = TLM_PLAN_CONVERGE_AUTO,
    };
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    TlmPlanSample sample = {
        .now_ns = now_ns - start_ns,
        .guest_speed = 1,
        .can_switchover = true,
    };
    TlmPlanDecision d;

    tlm_engine_sample(e, now_ns, &sample);
    tlm_engine_heed(e);
    tlm_planner_step(planner, &params, &sample, &d);
    *epoch = (TlmEpoch) {
        .ns = d.epoch_ms * (int64_t)SCALE_MS,
        .linger = tlm_engine_passed(e),
        .dtx = d.send_settled,
        .hot = d.send_hot,
        .walk_end = e->total_pages,
    };
    __atomic_store_n(&ram->pause_us, d.guest_speed < 1 ? 1000 : 20,
                     __ATOMIC_RELAXED);
    g_assert_cmpint(d.action, !=, TLM_PLAN_CANCEL);
    return d.action == TLM_PLAN_CONTINUE;
}

static Outcome error_outcome(int ret)
{
    return ret == -ECANCELED ? CANCELLED : FAILED;
}

static Outcome migrate(const Scenario *s, TlmEngine *e, FakeRam *ram,
                       const FakeSink *sink, GRand *rand,
                       TlmPlanner *planner)
{
    Decide decide = s->planner ? decide_by_planner : decide_by_chance;
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    TlmEpoch epoch;
    int ret;

    tlm_engine_begin(e);
    while (true) {
        if (!tlm_engine_sync(e, NULL)) {
            return DOUBTED;
        }
        if (s->broken == BREAK_UNSENT_LOST) {
            lose_unsent(e);
        }
        tlm_engine_arm(e);
        if (!decide(e, ram, rand, planner, start_ns, &epoch)) {
            break;
        }
        tlm_engine_begin(e);
        ret = tlm_engine_run(e, &epoch);
        if (ret) {
            return error_outcome(ret);
        }
        if (s->broken == BREAK_TAKEN_BACK) {
            take_back(e, sink);
        }
        fake_ram_clear_late(ram);
        ret = tlm_engine_flush(e);
        if (ret) {
            return error_outcome(ret);
        }
    }

    fake_ram_stop_vcpus(ram);
    fake_ram_clear_late(ram);
    tlm_engine_take_rest(e);
    if (!tlm_engine_sync(e, NULL)) {
        return DOUBTED;
    }
    tlm_engine_arm(e);
    if (s->checkpoint) {
        fake_ram_freeze(ram);
        tlm_engine_keep_cap(e);
        fake_ram_start_vcpus(ram);
    }
    epoch = (TlmEpoch) { .ns = INT64_MAX };
    ret = tlm_engine_run(e, &epoch);
    if (!ret) {
        g_assert_cmpuint(tlm_engine_owed(e), ==, 0);
        ret = tlm_engine_drain(e);
    }
    if (!ret) {
        ret = tlm_engine_flush(e);
    }
    return ret ? error_outcome(ret) : GOOD;
}

/* From the first thread to the last */
static Outcome run(const Scenario *s, unsigned seed)
{
    GRand *rand = g_rand_new_with_seed(seed);
    FakeRam *ram = fake_ram_new(rand, s->broken);
    FakeSink *sink = fake_sink_new(rand, ram, s->fault);
    TlmPlanner *planner = tlm_planner_new();
    TlmEngineConfig config = {
        .ram_ops = &fake_ram_ops,
        .ram = ram,
        .sink_ops = &fake_sink_ops,
        .sink = sink,
        .page_bits = PAGE_BITS,
        .batch_max = g_rand_int_range(rand, 1, BATCH_MAX + 1),
    };
    TlmEngine *e = ram->engine = tlm_engine_new(&config);
    Outsider outsider = {
        .engine = e,
        .after_us = g_rand_int_range(rand, 0, 15000),
        .cancel = s->cancel,
    };
    pthread_t thread;
    Outcome outcome;

    fake_ram_add_blocks(ram);
    tlm_engine_start(e);
    fake_ram_start_vcpus(ram);
    g_assert(!pthread_create(&thread, NULL, outsider_thread, &outsider));

    outcome = migrate(s, e, ram, sink, rand, planner);

    if (outcome == FAILED) {
        /* As QEMU does: nobody has to wait for the peer any more */
        tlm_engine_cancel(e);
    }
    __atomic_store_n(&outsider.end, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    fake_ram_stop_vcpus(ram);
    tlm_engine_stop(e);
    fake_sink_end(sink);
    if (outcome == GOOD && fake_sink_differing(sink)) {
        outcome = DIFFERS;
    }
    if (sink->twice) {
        outcome = TWICE;
    }
    tlm_engine_free(e);
    tlm_planner_free(planner);
    fake_sink_free(sink);
    fake_ram_free(ram);
    g_rand_free(rand);
    return outcome;
}

static unsigned from_env(const char *name, unsigned otherwise)
{
    const char *text = g_getenv(name);

    return text ? g_ascii_strtoull(text, NULL, 0) : otherwise;
}

static unsigned next_seed(void)
{
    return from_env("TLM_ENGINE_SEED", g_test_rand_int());
}

static bool allowed(const Scenario *s, Outcome outcome)
{
    switch (outcome) {
    case GOOD:
        return true;            /* a fault may come too late */
    case FAILED:
        return s->fault != FAULT_NOTHING || s->cancel;
    case CANCELLED:
        return s->cancel;
    default:
        return false;
    }
}

static void test_good(const void *opaque)
{
    const Scenario *s = opaque;
    unsigned runs = from_env("TLM_ENGINE_RUNS", RUNS_DEFAULT);
    unsigned good = 0;

    if (s->planner) {
        runs = MAX(runs / PLANNER_SHARE, 1);
    }
    for (unsigned i = 0; i < runs; i++) {
        unsigned seed = next_seed();
        Outcome outcome = run(s, seed);

        if (!allowed(s, outcome)) {
            g_test_message("seed %u: outcome %d", seed, outcome);
            g_test_fail();
            return;
        }
        good += outcome == GOOD;
    }
    g_test_message("%u migrations, %u completed", runs, good);
    if (s->fault == FAULT_NOTHING && !s->cancel) {
        g_assert_cmpuint(good, ==, runs);
    } else {
        /* the fault must have come, too */
        g_assert_cmpuint(good, <, runs);
    }
}

static void test_found(const void *opaque)
{
    const Scenario *s = opaque;

    for (unsigned i = 0; i < RUNS_PER_BREAK; i++) {
        Outcome outcome = run(s, next_seed());

        if (outcome != GOOD) {
            g_test_message("found by migration %u: outcome %d", i + 1,
                           outcome);
            g_assert_true(outcome == DIFFERS || outcome == TWICE ||
                          outcome == DOUBTED);
            return;
        }
    }
    g_test_message("not found in %u migrations", RUNS_PER_BREAK);
    g_test_fail();
}

int main(int argc, char **argv)
{
    static const Scenario good[] = {
        { BREAK_NOTHING },
        { BREAK_NOTHING, .planner = true },
        { BREAK_NOTHING, .cancel = true },
        { BREAK_NOTHING, .checkpoint = true },
        { BREAK_NOTHING, .checkpoint = true, .cancel = true },
        { BREAK_NOTHING, FAULT_ERROR },
        { BREAK_NOTHING, FAULT_DEAD_PEER, .cancel = true },
    };
    static const char *const good_names[] = {
        "chance", "planner", "cancel", "checkpoint", "checkpoint-cancel",
        "error", "dead-peer",
    };
    static const Scenario broken[] = {
        { BREAK_NO_FLUSH },
        { BREAK_ARM_LATE, .checkpoint = true },
        { BREAK_ARM_LATE },
        { BREAK_CLEAR_UNREAD },
        { BREAK_UNSENT_LOST },
        { BREAK_TAKEN_BACK },
    };
    static const char *const broken_names[] = {
        "no-flush", "checkpoint-arm-after-read", "arm-after-read",
        "clear-unread", "unsent-lost", "taken-back",
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *path = g_strdup_printf("/engine/%s", good_names[i]);

        g_test_add_data_func(path, &good[i], test_good);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(broken); i++) {
        g_autofree char *path = g_strdup_printf("/engine/found/%s",
                                                broken_names[i]);

        g_test_add_data_func(path, &broken[i], test_found);
    }
    return g_test_run();
}
