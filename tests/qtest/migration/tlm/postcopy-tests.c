/*
 * QTest testcases for TLM: the end by post-copy
 *
 * The guest rewrites its 100 MB all the time, so a stop would take longer than
 * the downtime limit.  What is never written to is sent in the pass.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "framework.h"
#include "guest.h"
#include "query.h"
#include "tests.h"

/* QEMU 10.1 lets multifd and post-copy go together */
#define HAS_POSTCOPY \
    (QEMU_VERSION_MAJOR > 10 || \
     (QEMU_VERSION_MAJOR == 10 && QEMU_VERSION_MINOR >= 1))
/* Of post-copy, bytes a second: it does not end by itself */
#define HELD_POSTCOPY (16 * KiB)

static bool prepare_converge(TlmPair *pair)
{
    migrate_set_parameter_str(pair->from, "tlm-converge", "postcopy");
    return true;
}

/* In post-copy when this returns, and for long */
static void postcopy(TlmPair *pair)
{
    migrate_set_parameter_int(pair->from, "max-postcopy-bandwidth",
                              HELD_POSTCOPY);
    migrate_set_parameter_int(pair->from, "max-bandwidth", TLM_FAST);
    tlm_wait_for_stage(pair->from, "postcopy");
    tlm_wait_for_status(pair->from, "postcopy-active");
    g_assert_false(tlm_guest_runs(pair->from));
}

static void complete(TlmPair *pair)
{
    TlmInfo info;
    int64_t total;

    migrate_set_parameter_int(pair->from, "max-postcopy-bandwidth", 0);
    wait_for_migration_complete(pair->from);
    tlm_wait_for_stage(pair->from, "done");
    wait_for_stop(pair->from, get_src());
    tlm_assert_stages("setup,live,device,postcopy,done,");

    info = tlm_query(pair->from);
    total = read_ram_property_int(pair->from, "total");
    g_assert_cmpfloat(info.progress, ==, 100);
    g_assert_cmpint(info.eta, ==, 0);
    g_assert_cmpint(info.postcopy_owed, >, 0);
    g_assert_cmpint(info.postcopy_remaining, ==, 0);
    g_assert_cmpint(info.stop_bytes, >=, info.postcopy_owed);
    /* A page that was neither sent nor dirty would hang the guest */
    g_assert_cmpint(info.skipped_bytes, ==, 0);
    g_assert_cmpint(info.mtx_bytes + info.dtx_bytes + info.stop_bytes, >=,
                    total);
    g_assert_cmpint(info.downtime_us, >, 0);

    wait_for_migration_complete(pair->to);
    tlm_check_resumes(pair->to);
    tlm_end(pair);
}

static void end_by_postcopy(const char *cap)
{
    TlmTest t = {
        .prepare = prepare_converge, .caps = { "postcopy-ram", cap },
    };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate_live(&pair);
    postcopy(&pair);
    complete(&pair);
}

static void test_plain(void)
{
    end_by_postcopy(NULL);
}

static void test_preempt(void)
{
    end_by_postcopy("postcopy-preempt");
}

/* "migrate-start-postcopy": at the end of the pass, or a second time: now */
static void ask(bool twice)
{
    TlmTest t = { .caps = { "postcopy-ram" } };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate_live(&pair);
    qtest_qmp_assert_success(pair.from,
                             "{ 'execute': 'migrate-start-postcopy' }");
    if (twice) {
        tlm_wait_for_epochs(pair.from, tlm_query(pair.from).epochs + 1);
        tlm_assert_stages("setup,live,");
        qtest_qmp_assert_success(pair.from,
                                 "{ 'execute': 'migrate-start-postcopy' }");
        tlm_wait_for_stage(pair.from, "postcopy");
        g_assert_cmpint(tlm_query(pair.from).passed_bytes, <,
                        read_ram_property_int(pair.from, "total"));
    } else {
        postcopy(&pair);
        g_assert_cmpint(tlm_query(pair.from).passed_bytes, ==,
                        read_ram_property_int(pair.from, "total"));
    }
    complete(&pair);
}

static void test_asked(void)
{
    ask(false);
}

static void test_asked_twice(void)
{
    ask(true);
}

/* Half of the guest is at the destination: it cannot go back */
static void test_cancel(void)
{
    TlmTest t = { .prepare = prepare_converge, .caps = { "postcopy-ram" } };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate_live(&pair);
    postcopy(&pair);
    tlm_check_error(qtest_qmp_assert_failure_ref(
        pair.from, "{ 'execute': 'migrate_cancel' }"), "cannot cancel");
    complete(&pair);
}

static void wait_for_pause(QTestState *who)
{
    static const char *ungoals[] = { "failed", "completed", NULL };

    wait_for_migration_status(who, "postcopy-paused", ungoals);
}

/* The connections break, and new ones take over */
static void cut_and_recover(TlmPair *pair)
{
    g_autofree char *uri = NULL;

    tlm_proxy_reset(pair->proxy, TLM_PROXY_MAIN);
    wait_for_pause(pair->to);
    wait_for_pause(pair->from);
    g_clear_pointer(&pair->proxy, tlm_proxy_free);

    migrate_recover(pair->to, "tcp:127.0.0.1:0");
    uri = migrate_get_connect_uri(pair->to);
    pair->proxy = tlm_proxy_new(uri);
    migrate_qmp(pair->from, pair->to, tlm_proxy_uri(pair->proxy), NULL,
                "{'resume': true}");
    tlm_wait_for_status(pair->from, "postcopy-active");
}

static void recover(const char *cap)
{
    TlmTest t = {
        .start = { .oob = true, .hide_stderr = true },
        .prepare = prepare_converge,
        .caps = { "postcopy-ram", cap },
        .proxy = true,
    };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate_live(&pair);
    postcopy(&pair);
    for (unsigned cuts = 0; cuts < 2; cuts++) {
        cut_and_recover(&pair);
    }
    complete(&pair);
}

static void test_recovery(void)
{
    recover(NULL);
}

static void test_recovery_preempt(void)
{
    recover("postcopy-preempt");
}

/* Until post-copy begins, nothing is at risk */
static void test_lost_before(void)
{
    TlmTest t = {
        .start = { .hide_stderr = true }, .caps = { "postcopy-ram" },
    };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate_live(&pair);
    qtest_qmp_assert_success(pair.from,
                             "{ 'execute': 'migrate-start-postcopy' }");
    tlm_lose_target(&pair);
    tlm_recover(&pair, &t);
}

void tlm_test_add_postcopy(MigrationTestEnv *env)
{
    if (!HAS_POSTCOPY || !env->has_uffd) {
        return;
    }
#define ADD(name, func) \
    migration_test_add("/migration/tlm/postcopy/" name, func)
    ADD("plain", test_plain);
    ADD("preempt", test_preempt);
    ADD("asked", test_asked);
    ADD("asked-twice", test_asked_twice);
    ADD("cancel", test_cancel);
    ADD("recovery", test_recovery);
    ADD("recovery-preempt", test_recovery_preempt);
    ADD("lost-before", test_lost_before);
#undef ADD
}
