/*
 * QTest testcases for TLM: something goes wrong in the middle
 *
 * A test is a row of a table: a place in the migration, and what happens
 * there.  Whatever it is, the guest runs on at the source and the next
 * migration completes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "framework.h"
#include "guest.h"
#include "leftovers.h"
#include "query.h"
#include "tests.h"

#define PATH "/migration/tlm/"

/*
 * Places
 */

typedef struct Place {
    /* Starts the migration, and goes there */
    void (*reach)(TlmPair *pair);
    /* That have begun by then, or NULL: it may be further by now */
    const char *stages;
    bool proxy;
    const char *cap;
} Place;

static void reach_setup(TlmPair *pair)
{
    tlm_migrate(pair, NULL, TLM_HELD);
}

/* The destination does not read: mtx waits in sendmsg() */
static void reach_live_stalled(TlmPair *pair)
{
    int64_t start_us;

    tlm_proxy_forward(pair->proxy, TLM_PROXY_NONE);
    tlm_migrate(pair, NULL, TLM_FAST);
    tlm_wait_for_stage(pair->from, "live");
    start_us = g_get_monotonic_time();
    while (tlm_query(pair->from).mtx_bytes < MiB) {
        tlm_more_time(start_us);
    }
    tlm_check_guest_runs(pair->from);
}

static void reach_pre_switchover(TlmPair *pair)
{
    tlm_migrate(pair, NULL, TLM_FAST);
    tlm_wait_for_status(pair->from, "pre-switchover");
    g_assert_false(tlm_guest_runs(pair->from));
}

/*
 * Goes up to the stop stage, which has 100 MiB to send, more than all sockets
 * hold.  The pages are filled so that none of them is zero: the byte that the
 * guest itself counts up in each page passes 0.
 */
static void reach_full_live(TlmPair *pair)
{
    tlm_migrate_live(pair);
    tlm_fill_guest_pages(pair->from);
}

/* Into that stage; the bandwidth that is held down does not bind it */
static void enter_stop(TlmPair *pair)
{
    tlm_switchover(pair->from);
    tlm_wait_for_stage(pair->from, "stop");
    g_assert_false(tlm_guest_runs(pair->from));
}

static void reach_stop_stalled(TlmPair *pair)
{
    reach_full_live(pair);
    tlm_proxy_forward(pair->proxy, TLM_PROXY_NONE);
    enter_stop(pair);
    /* QMP still answers, again and again */
    for (unsigned i = 0; i < 10; i++) {
        g_assert_false(tlm_guest_runs(pair->from));
        g_assert_cmpint(tlm_query(pair->from).epochs, >, 0);
    }
    tlm_assert_stages("setup,live,stop,");
}

/* The destination has stopped to run */
static void reach_stop_frozen(TlmPair *pair)
{
    reach_full_live(pair);
    g_assert_cmpint(kill(qtest_pid(pair->to), SIGSTOP), ==, 0);
    enter_stop(pair);
}

static const Place setup = { .reach = reach_setup };
static const Place live = {
    .reach = tlm_migrate_live, .stages = "setup,live,",
};
static const Place live_stalled = {
    .reach = reach_live_stalled, .stages = "setup,live,", .proxy = true,
};
static const Place pre_switchover = {
    .reach = reach_pre_switchover,
    .stages = "setup,live,stop,pre-switchover,",
    .cap = "pause-before-switchover",
};
static const Place stop_stalled = {
    .reach = reach_stop_stalled, .stages = "setup,live,stop,", .proxy = true,
};
static const Place stop_frozen = {
    .reach = reach_stop_frozen, .stages = "setup,live,stop,",
};

/*
 * What happens there
 */

typedef struct Fault {
    void (*strike)(TlmPair *pair);
    /* Waits for the end that it leads to */
    void (*wait_for_end)(QTestState *from);
    bool proxy;
} Fault;

static void strike_cancel(TlmPair *pair)
{
    migrate_cancel(pair->from);
}

static void strike_yank(TlmPair *pair)
{
    qtest_qmp_assert_success(pair->from,
                             "{ 'execute': 'yank', 'arguments': {"
                             "  'instances': [ {"
                             "      'type': 'migration' } ] } }");
}

/* With two channels, the first is mtx's and the second dtx's */
static void strike_mtx(TlmPair *pair)
{
    tlm_proxy_reset(pair->proxy, 0);
}

static void strike_dtx(TlmPair *pair)
{
    tlm_proxy_reset(pair->proxy, 1);
}

static void strike_main(TlmPair *pair)
{
    tlm_proxy_reset(pair->proxy, TLM_PROXY_MAIN);
    /* Nobody looks at it before the channels have sent all */
    tlm_proxy_forward(pair->proxy, TLM_PROXY_ALL);
}

static void wait_cancelled(QTestState *from)
{
    tlm_wait_for_status(from, "cancelled");
}

static void wait_failed(QTestState *from)
{
    QDict *rsp;

    tlm_wait_for_status(from, "failed");
    tlm_wait_for_stage(from, "done");
    rsp = migrate_query(from);
    g_assert_cmpstr(qdict_get_try_str(rsp, "error-desc") ?: "", !=, "");
    qobject_unref(rsp);
}

static const Fault cancel = { strike_cancel, wait_cancelled };
static const Fault killed = { tlm_lose_target, wait_failed };
static const Fault yank = { strike_yank, wait_failed };
static const Fault broken_mtx = { strike_mtx, wait_failed, .proxy = true };
static const Fault broken_dtx = { strike_dtx, wait_failed, .proxy = true };
static const Fault broken_main = { strike_main, wait_failed, .proxy = true };

/*
 * The tests
 */

typedef struct Row {
    const char *name;
    const Place *place;
    const Fault *fault;
    unsigned channels;          /* 2 if not given */
    bool smoke;                 /* in QEMU's default set as well */
} Row;

static const Row rows[] = {
    { "cancel/setup", &setup, &cancel },
    { "cancel/live", &live, &cancel, .channels = 4, .smoke = true },
    { "cancel/live/stalled", &live_stalled, &cancel },
    { "cancel/stop", &stop_stalled, &cancel, .channels = 3 },
    { "cancel/pre-switchover", &pre_switchover, &cancel },
    { "killed/live", &live, &killed },
    { "killed/stop", &stop_frozen, &killed },
    { "broken/live/mtx", &live, &broken_mtx },
    { "broken/live/dtx", &live, &broken_dtx },
    { "broken/live/main", &live, &broken_main },
    { "broken/stop/mtx", &stop_stalled, &broken_mtx },
    { "broken/stop/dtx", &stop_stalled, &broken_dtx },
    { "broken/stop/main", &stop_stalled, &broken_main },
    { "yank/live", &live, &yank },
    { "yank/stop", &stop_stalled, &yank },
};

static const Row *find_row(const char *path)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        if (g_str_equal(path + strlen(PATH), rows[i].name)) {
            return &rows[i];
        }
    }
    g_assert_not_reached();
}

static void test_row(void *opaque)
{
    const Row *row = find_row(opaque);
    TlmTest t = {
        .start.hide_stderr = true,
        .channels = row->channels,
        .caps = { row->place->cap },
        .proxy = row->place->proxy || row->fault->proxy,
    };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    row->place->reach(&pair);
    row->fault->strike(&pair);
    row->fault->wait_for_end(pair.from);
    if (row->place->stages) {
        g_autofree char *all = g_strconcat(row->place->stages, "done,", NULL);

        tlm_assert_stages(all);
    }
    if (pair.to) {
        tlm_lose_target(&pair);
    }
    tlm_recover(&pair, &t);
}

/* Many in one process; then one that completes */
static void test_cancel_repeated(void)
{
    TlmTest t = { .start.hide_stderr = true }, again = t;
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    again.start.only_target = true;
    for (unsigned i = 0; i < 5; i++) {
        if (i) {
            g_assert_true(tlm_start(&pair, &again));
        }
        /* The fast ones shall not get past the end before they are cancelled */
        migrate_set_capability(pair.from, "pause-before-switchover", i % 2);
        tlm_migrate(&pair, NULL, i % 2 ? TLM_FAST : TLM_HELD);
        if (i % 2 == 0) {
            tlm_wait_for_stage(pair.from, "live");
        }
        migrate_cancel(pair.from);
        /* The last thing that can still fail may be past */
        tlm_wait_for_status(pair.from, "cancelled");
        tlm_lose_target(&pair);
        tlm_check_guest_runs(pair.from);
        tlm_check_nothing_left(pair.from, pair.sockets);
    }
    tlm_recover(&pair, &t);
}

void tlm_test_add_fault(MigrationTestEnv *env)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].smoke || env->full_set) {
            migration_test_add_suffix(PATH, rows[i].name, test_row);
        }
    }
    if (env->full_set) {
        migration_test_add(PATH "cancel/repeated", test_cancel_repeated);
    }
}
