/*
 * QTest testcases for TLM: the live stage, and how it is controlled
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "qobject/qlist.h"
#include "framework.h"
#include "guest.h"
#include "leftovers.h"
#include "query.h"
#include "tests.h"

/*
 * mtx has come by the marker.  Who else than dtx could send it again,
 * before the guest is stopped?
 */
static void live_dtx(TlmPair *pair)
{
    g_assert_cmpint(tlm_query(pair->from).mtx_bytes, >, 0);
    for (unsigned i = 1; i <= 3; i++) {
        qtest_writeq(pair->from, TLM_MARKER, TLM_MARKER_VALUE + i);
        tlm_wait_for_arrival(pair, TLM_MARKER_VALUE + i);
        g_assert_true(tlm_guest_runs(pair->from));
        g_assert_cmpint(tlm_query(pair->from).dtx_bytes, >=,
                        i * TEST_MEM_PAGE_SIZE);
    }
    g_assert_cmpint(tlm_query(pair->from).resent_bytes, >=,
                    3 * TEST_MEM_PAGE_SIZE);
    tlm_assert_stages("setup,live,");
}

static void test_dtx(void)
{
    tlm_test(&(TlmTest) { .live = live_dtx });
}

static bool prepare_dtx_off(TlmPair *pair)
{
    migrate_set_parameter_bool(pair->from, "tlm-dtx", false);
    return true;
}

/* Pages that dtx would send: dirty, and not written to for a while */
static int64_t settled_bytes(QTestState *from, int64_t *epochs)
{
    QDict *rsp = migrate_query_not_failed(from);
    TlmInfo info = tlm_info(rsp);

    qobject_unref(rsp);
    *epochs = info.epochs;
    return info.dirty_bytes - info.hot_bytes;
}

/* The stop stage sends what dtx does not */
static void test_dtx_off(void)
{
    TlmTest t = { .prepare = prepare_dtx_off };
    int64_t start_us, first, epochs;
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate_live(&pair);
    qtest_writeq(pair.from, TLM_MARKER, TLM_MARKER_VALUE + 1);
    start_us = g_get_monotonic_time();
    while (!settled_bytes(pair.from, &first)) {
        tlm_more_time(start_us);
    }
    /* It stays so, although there is time to send it */
    do {
        g_assert_cmpint(settled_bytes(pair.from, &epochs), >, 0);
        tlm_more_time(start_us);
    } while (epochs < first + 3);
    g_assert_cmphex(qtest_readq(pair.to, TLM_MARKER), ==, TLM_MARKER_VALUE);
    g_assert_cmpint(tlm_query(pair.from).dtx_bytes, ==, 0);
    tlm_assert_stages("setup,live,");

    tlm_complete(&pair);
    g_assert_cmphex(qtest_readq(pair.to, TLM_MARKER), ==,
                    TLM_MARKER_VALUE + 1);
    g_assert_cmpint(tlm_query(pair.from).dtx_bytes, ==, 0);
    g_assert_cmpint(tlm_query(pair.from).stop_bytes, >, 0);
    tlm_end(&pair);
}

static bool prepare_epoch(TlmPair *pair)
{
    migrate_set_parameter_int(pair->from, "tlm-epoch", 100);
    return true;
}

/* Can be changed while it runs */
static void live_epoch(TlmPair *pair)
{
    static const unsigned ms[] = { 20, 200, 0 };

    for (unsigned i = 0; i < ARRAY_SIZE(ms); i++) {
        int64_t epochs = tlm_query(pair->from).epochs;

        migrate_set_parameter_int(pair->from, "tlm-epoch", ms[i]);
        tlm_wait_for_epochs(pair->from, epochs + 2);
    }
    tlm_assert_stages("setup,live,");
}

static void test_epoch(void)
{
    tlm_test(&(TlmTest) { .prepare = prepare_epoch, .live = live_epoch });
}

/*
 * In the live stage, what is sent stays below the cap.  The clock is read
 * before and after: a busy host can make this test lenient, not fail.
 */
static void live_bandwidth(TlmPair *pair)
{
    const int64_t cap = MiB, window_us = 4 * G_USEC_PER_SEC;
    QTestState *from = pair->from;
    int64_t start_us, first;

    migrate_set_parameter_int(from, "max-bandwidth", cap);
    /* Taken over by now */
    tlm_wait_for_epochs(from, tlm_query(from).epochs + 2);
    start_us = g_get_monotonic_time();
    first = read_ram_property_int(from, "transferred");
    while (g_get_monotonic_time() - start_us < window_us) {
        int64_t sent = read_ram_property_int(from, "transferred") - first;
        int64_t us = g_get_monotonic_time() - start_us;

        tlm_assert_stages("setup,live,");
        if (us > G_USEC_PER_SEC) {
            g_assert_cmpint(sent, <=,
                            cap * us / G_USEC_PER_SEC / 100 * 105);
        }
        g_usleep(1000);
    }
    /* It does send */
    g_assert_cmpint(read_ram_property_int(from, "transferred"), >, first);
}

static void test_bandwidth(void)
{
    tlm_test(&(TlmTest) { .channels = 4, .live = live_bandwidth });
}

static void check_threads(QTestState *from)
{
    static const char *const names[] = { "mig/src/mtx", "mig/src/dtx" };
    QDict *rsp = qtest_qmp(from, "{ 'execute': 'query-migrationthreads' }");
    int64_t tid[2] = {};
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *thread = qobject_to(QDict, qlist_entry_obj(entry));

        for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
            if (g_str_equal(qdict_get_str(thread, "name"), names[i])) {
                g_assert_cmpint(tid[i], ==, 0);
                tid[i] = qdict_get_int(thread, "thread-id");
            }
        }
    }
    qobject_unref(rsp);

    /* They are threads of this process, under these names */
    g_assert_cmpint(tid[0], !=, tid[1]);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *comm = NULL;
        g_autofree char *file = g_strdup_printf(
            "/proc/%d/task/%" PRId64 "/comm", qtest_pid(from), tid[i]);

        g_assert_true(g_file_get_contents(file, &comm, NULL, NULL));
        g_assert_cmpstr(g_strchomp(comm), ==, names[i]);
    }
}

static void test_threads(void)
{
    TlmPair pair;

    if (!tlm_start(&pair, &(TlmTest) {})) {
        return;
    }
    tlm_migrate(&pair, NULL, TLM_HELD);
    tlm_wait_for_stage(pair.from, "live");
    /* A thread is known once it runs, and at the end of an epoch it has */
    tlm_wait_for_epochs(pair.from, 2);
    check_threads(pair.from);
    tlm_complete(&pair);
    tlm_check_nothing_left(pair.from, pair.sockets);
    tlm_end(&pair);
}

/* Each channel is used, and the groups are what tlm-dtx-channels says */
static void test_groups(void)
{
    TlmTest t = { .channels = 3, .dtx_channels = 1, .proxy = true };
    int64_t start_us;
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate_live(&pair);
    live_dtx(&pair);
    tlm_complete(&pair);
    /* The stop stage takes all channels: some 100 MiB over three of them */
    start_us = g_get_monotonic_time();
    for (unsigned i = 0; i < t.channels; i++) {
        while (tlm_proxy_bytes(pair.proxy, i) < 4 * MiB) {
            tlm_more_time(start_us);
        }
    }
    g_assert_cmpint(tlm_proxy_bytes(pair.proxy, t.channels), ==, 0);
    tlm_end(&pair);
}

static void check_no_switchover(QTestState *from)
{
    tlm_check_error(qtest_qmp_assert_failure_ref(
                        from, "{ 'execute': 'migrate-tlm-switchover' }"),
                    "live stage");
}

/* Ends the live stage, although most of RAM has not been sent */
static void test_switchover(void)
{
    TlmPair pair;

    if (!tlm_start(&pair, &(TlmTest) {})) {
        return;
    }
    check_no_switchover(pair.from);
    tlm_migrate_live(&pair);
    g_assert_cmpint(tlm_query(pair.from).unsent_bytes, >,
                    TLM_PATTERN_SIZE / 2);
    tlm_switchover(pair.from);
    /* With the bandwidth still held down: it does not bind the stop stage */
    wait_for_migration_complete(pair.from);
    tlm_wait_for_stage(pair.from, "done");
    tlm_check_completed(pair.from);
    check_no_switchover(pair.from);
    g_assert_cmpint(tlm_query(pair.from).stop_bytes, >,
                    TLM_PATTERN_SIZE / 2);
    wait_for_migration_complete(pair.to);
    tlm_check_resumes(pair.to);
    tlm_end(&pair);
}

void tlm_test_add_live(MigrationTestEnv *env)
{
    if (!env->full_set) {
        return;
    }
    migration_test_add("/migration/tlm/dtx", test_dtx);
    migration_test_add("/migration/tlm/dtx/off", test_dtx_off);
    migration_test_add("/migration/tlm/epoch", test_epoch);
    migration_test_add("/migration/tlm/bandwidth", test_bandwidth);
    migration_test_add("/migration/tlm/threads", test_threads);
    migration_test_add("/migration/tlm/groups", test_groups);
    migration_test_add("/migration/tlm/switchover", test_switchover);
}
