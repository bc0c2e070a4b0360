/*
 * QTest for TLM: a source and a destination, and a migration between them
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

static const char *tmpfs;
static QTestMigrationState dst_state;

void tlm_test_init(MigrationTestEnv *env)
{
    tmpfs = env->tmpfs;
}

const char *tlm_tmpfs(void)
{
    return tmpfs;
}

bool tlm_target_resumed(void)
{
    return dst_state.resume_seen;
}

void tlm_wait_for_arrival(TlmPair *pair, uint64_t value)
{
    int64_t start_us = g_get_monotonic_time();

    while (qtest_readq(pair->to, TLM_MARKER) != value) {
        QDict *rsp = migrate_query_not_failed(pair->from);

        qobject_unref(rsp);
        tlm_more_time(start_us);
    }
}

void tlm_check_error(QDict *err, const char *words)
{
    const char *desc = qdict_get_str(err, "desc");
    g_auto(GStrv) word = g_strsplit(words, ",", 0);

    for (unsigned i = 0; word[i]; i++) {
        if (!strstr(desc, word[i])) {
            g_test_message("'%s' does not say '%s'", desc, word[i]);
        }
        g_assert_nonnull(strstr(desc, word[i]));
    }
    qobject_unref(err);
}

/*
 * Starting
 */

static void set_caps(TlmPair *pair, const TlmTest *t)
{
    unsigned channels = t->channels ?: 2;

    migrate_set_capability(pair->from, "multifd", true);
    migrate_set_capability(pair->to, "multifd", true);
    for (unsigned i = 0; t->caps[i]; i++) {
        migrate_set_capability(pair->from, t->caps[i], true);
        migrate_set_capability(pair->to, t->caps[i], true);
    }
    migrate_set_parameter_int(pair->from, "multifd-channels", channels);
    migrate_set_parameter_int(pair->to, "multifd-channels", channels);
    if (!t->no_tlm) {
        migrate_set_capability(pair->from, "tlm", true);
        migrate_set_parameter_int(pair->from, "tlm-dtx-channels",
                                  t->dtx_channels);
    }
}

bool tlm_start(TlmPair *pair, const TlmTest *t)
{
    MigrateStart start = t->start;

    if (migrate_start(&pair->from, &pair->to, "defer", &start)) {
        return false;
    }
    dst_state = (QTestMigrationState) {};
    qtest_qmp_set_event_callback(pair->to, migrate_watch_for_events,
                                 &dst_state);
    if (!start.only_target) {
        tlm_watch_stages(pair->from);
    }

    set_caps(pair, t);
    if (t->prepare && !t->prepare(pair)) {
        migrate_end(pair->from, pair->to, false);
        return false;
    }

    if (!start.only_target) {
        wait_for_serial("src_serial");
        tlm_fill_pattern(pair->from);
        pair->sockets = tlm_count_sockets(pair->from);
    }
    /* The last migration may have left something else here */
    qtest_writeq(pair->from, TLM_MARKER, TLM_MARKER_VALUE);
    if (!t->uri || !g_str_has_prefix(t->uri, "file:")) {
        migrate_incoming_qmp(pair->to, t->uri ?: "tcp:127.0.0.1:0", NULL,
                             "{}");
    }
    pair->proxy = NULL;
    if (t->proxy) {
        g_autofree char *target = migrate_get_connect_uri(pair->to);

        pair->proxy = tlm_proxy_new(target);
    }
    pair->channels = NULL;
    if (t->listens) {
        t->listens(pair);
    }
    return true;
}

void tlm_migrate(TlmPair *pair, const char *uri, uint64_t bandwidth)
{
    if (!uri && pair->proxy) {
        uri = tlm_proxy_uri(pair->proxy);
    }
    migrate_set_parameter_int(pair->from, "max-bandwidth", bandwidth);
    migrate_set_parameter_int(pair->from, "downtime-limit", 1);
    tlm_stages_clear();
    migrate_qmp(pair->from, pair->to, uri, g_steal_pointer(&pair->channels),
                "{}");
}

void tlm_migrate_live(TlmPair *pair)
{
    tlm_migrate(pair, NULL, TLM_HELD);
    tlm_wait_for_stage(pair->from, "live");
    tlm_wait_for_arrival(pair, TLM_MARKER_VALUE);
}

void tlm_switchover(QTestState *from)
{
    qtest_qmp_assert_success(from,
                             "{ 'execute': 'migrate-tlm-switchover' }");
}

/*
 * Completing
 */

void tlm_check_completed(QTestState *from)
{
    bool paused = strstr(tlm_stages(), "pre-switchover");
    QDict *rsp = migrate_query(from);
    QDict *ram = qdict_get_qdict(rsp, "ram");
    TlmInfo tlm = tlm_info(rsp);
    int64_t sent = tlm.mtx_bytes + tlm.dtx_bytes + tlm.stop_bytes;
    int64_t qemu_sent = (qdict_get_int(ram, "duplicate") +
                         qdict_get_int(ram, "normal")) *
                        qdict_get_int(ram, "page-size");

    tlm_assert_stages(paused ?
                      "setup,live,stop,pre-switchover,device,done," :
                      "setup,live,stop,device,done,");
    g_assert_cmpstr(tlm.stage, ==, "done");
    g_assert_cmpfloat(tlm.progress, ==, 100);
    g_assert_cmpint(tlm.eta, ==, 0);

    /* All of RAM but what is zero anyway, and what was sent again */
    g_assert_cmpint(sent, ==, qdict_get_int(ram, "total") -
                              tlm.skipped_bytes + tlm.resent_bytes);
    /* QEMU's own sync comes after TLM's last, and may find some more */
    g_assert_cmpint(qemu_sent, >=, sent);

    g_assert_cmpint(tlm.downtime_us, ==,
                    qdict_get_int(rsp, "downtime") * 1000);
    qobject_unref(rsp);
}

void tlm_check_resumes(QTestState *to)
{
    wait_for_resume(to, &dst_state);
    wait_for_serial("dest_serial");
    tlm_check_pattern(to);
}

/* Neither progress nor what is counted runs backwards */
static void check_advances(const TlmInfo *before, const TlmInfo *now)
{
    g_assert_cmpfloat(now->progress, >=, before->progress);
    g_assert_cmpfloat(now->progress, <=, 100);
    g_assert_cmpint(now->passed_bytes, >=, before->passed_bytes);
    g_assert_cmpint(now->epochs, >=, before->epochs);
}

static void complete(TlmPair *pair, bool no_tlm)
{
    int64_t start_us = g_get_monotonic_time();
    TlmInfo last = {};
    bool done = false;

    migrate_ensure_converge(pair->from);
    while (!done) {
        QDict *rsp = migrate_query_not_failed(pair->from);

        done = g_str_equal(qdict_get_str(rsp, "status"), "completed");
        g_assert_cmpint(tlm_info_present(rsp), ==, !no_tlm);
        if (!no_tlm) {
            TlmInfo now = tlm_info(rsp);

            check_advances(&last, &now);
            last = now;
        }
        qobject_unref(rsp);
        tlm_more_time(start_us);
    }
    wait_for_stop(pair->from, get_src());
    if (no_tlm) {
        tlm_assert_stages("");
    } else {
        g_assert_cmpint(last.epochs, >, 0);
        tlm_wait_for_stage(pair->from, "done");
        tlm_check_completed(pair->from);
    }
    wait_for_migration_complete(pair->to);
    tlm_check_resumes(pair->to);
}

void tlm_complete(TlmPair *pair)
{
    complete(pair, false);
}

static void end_proxy(TlmPair *pair)
{
    g_clear_pointer(&pair->proxy, tlm_proxy_free);
}

void tlm_end(TlmPair *pair)
{
    end_proxy(pair);
    migrate_end(pair->from, pair->to, true);
}

void tlm_test(const TlmTest *t)
{
    TlmPair pair;

    if (!tlm_start(&pair, t)) {
        return;
    }
    tlm_migrate(&pair, NULL, TLM_HELD);
    if (!t->no_tlm) {
        tlm_wait_for_stage(pair.from, "live");
    }
    tlm_wait_for_arrival(&pair, TLM_MARKER_VALUE);
    g_assert_true(tlm_guest_runs(pair.from));
    if (t->live) {
        t->live(&pair);
    }
    complete(&pair, t->no_tlm);
    tlm_end(&pair);
    if (t->end) {
        t->end();
    }
}

/*
 * Going on after something went wrong
 */

/*
 * The destination may not end by itself: one whose stream breaks may wait
 * for its multifd channels forever.  The guest has not run there, or it would
 * have written to its serial port.
 *
 * Frees nothing: libqtest takes the signal for a failure of the test.
 */
void tlm_lose_target(TlmPair *pair)
{
    g_autofree char *serial = g_strdup_printf("%s/dest_serial", tmpfs);
    g_autofree char *out = NULL;
    pid_t pid = qtest_pid(pair->to);

    end_proxy(pair);
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(RETRY_ON_EINTR(waitpid(pid, NULL, 0)), ==, pid);
    qtest_remove_abrt_handler(pair->to);
    pair->to = NULL;

    g_assert_true(g_file_get_contents(serial, &out, NULL, NULL));
    g_assert_cmpstr(out, ==, "");
}

void tlm_recover(TlmPair *pair, const TlmTest *t)
{
    TlmTest again = *t;

    tlm_check_guest_runs(pair->from);
    tlm_check_nothing_left(pair->from, pair->sockets);
    /* There is none if it did not get as far as RAM */
    g_assert_true(g_str_equal(tlm_stages(), "") ||
                  g_str_has_suffix(tlm_stages(), "done,"));

    for (unsigned i = 0; t->caps[i]; i++) {
        migrate_set_capability(pair->from, t->caps[i], false);
        again.caps[i] = NULL;
    }
    again.start.only_target = true;
    again.start.hide_stderr = false;
    again.prepare = NULL;
    again.listens = NULL;
    again.proxy = false;
    g_assert_true(tlm_start(pair, &again));
    tlm_migrate_live(pair);
    tlm_complete(pair);
    tlm_end(pair);
}
