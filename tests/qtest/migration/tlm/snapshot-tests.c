/*
 * QTest testcases for TLM: snapshots, which are no live migrations
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
#include "tests.h"

/* Waits for the end of a job, which must succeed */
static void finish_job(QTestState *vm, const char *id)
{
    int64_t start_us = g_get_monotonic_time();
    bool done = false;

    while (!done) {
        QDict *rsp = qtest_qmp(vm, "{ 'execute': 'query-jobs' }");
        const QListEntry *entry =
            qlist_first(qdict_get_qlist(rsp, "return"));
        QDict *job = qobject_to(QDict, qlist_entry_obj(entry));

        done = g_str_equal(qdict_get_str(job, "status"), "concluded");
        if (done && qdict_haskey(job, "error")) {
            g_test_message("%s", qdict_get_str(job, "error"));
            g_assert_false(qdict_haskey(job, "error"));
        }
        qobject_unref(rsp);
        tlm_more_time(start_us);
    }
    qtest_qmp_assert_success(
        vm, "{ 'execute': 'job-dismiss', 'arguments': { 'id': %s } }", id);
}

/* @command: snapshot-save or snapshot-load */
static void run_job(QTestState *vm, const char *command)
{
    qtest_qmp_assert_success(
        vm, "{ 'execute': %s, 'arguments': {"
            "  'job-id': 'job', 'tag': 'tag', 'vmstate': 'snap',"
            "  'devices': [ 'snap' ] } }", command);
    finish_job(vm, "job");
}

static void delete_snapshot(QTestState *vm)
{
    qtest_qmp_assert_success(
        vm, "{ 'execute': 'snapshot-delete', 'arguments': {"
            "  'job-id': 'job', 'tag': 'tag', 'devices': [ 'snap' ] } }");
    finish_job(vm, "job");
}

/* TLM has no part in it, although its capability is set */
static void test_snapshot(void)
{
    g_autofree char *image = g_strdup_printf("%s/snapshot.qcow2",
                                             tlm_tmpfs());
    g_autofree char *opts = g_strdup_printf(
        "-blockdev qcow2,node-name=snap,file.driver=file,file.filename=%s",
        image);
    MigrateStart start = { .opts_source = opts };
    QTestState *vm, *to;

    if (!have_qemu_img()) {
        g_test_skip("no qemu-img");
        return;
    }
    g_assert_true(mkimg(image, "qcow2", 256));
    if (migrate_start(&vm, &to, "defer", &start)) {
        unlink(image);
        return;
    }
    tlm_watch_stages(vm);
    migrate_set_capability(vm, "tlm", true);
    wait_for_serial("src_serial");
    tlm_fill_pattern(vm);

    run_job(vm, "snapshot-save");
    /* To see that it comes back */
    qtest_memset(vm, TLM_PATTERN_START, 0, TLM_PATTERN_SIZE);
    qtest_writeq(vm, TLM_MARKER, 0);
    run_job(vm, "snapshot-load");
    tlm_check_pattern(vm);
    g_assert_cmphex(qtest_readq(vm, TLM_MARKER), ==, TLM_MARKER_VALUE);
    delete_snapshot(vm);

    tlm_assert_stages("");
    g_assert_false(tlm_has_threads(vm));
    tlm_check_guest_runs(vm);
    migrate_end(vm, to, false);
    unlink(image);
}

void tlm_test_add_snapshot(MigrationTestEnv *env)
{
    if (!env->full_set) {
        return;
    }
    migration_test_add("/migration/tlm/snapshot", test_snapshot);
}
