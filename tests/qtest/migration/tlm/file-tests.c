/*
 * QTest testcases for TLM: migration to a file with mapped-ram
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "framework.h"
#include "tests.h"

static void run(bool (*prepare)(TlmPair *pair), bool stop)
{
    g_autofree char *uri = g_strdup_printf("file:%s/%s", tlm_tmpfs(),
                                           FILE_TEST_FILENAME);
    TlmTest t = {
        .uri = uri, .channels = 4, .caps = { "mapped-ram" },
        .prepare = prepare,
    };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    if (stop) {
        qtest_qmp_assert_success(pair.from, "{ 'execute': 'stop' }");
    }
    tlm_migrate(&pair, uri, TLM_FAST);
    wait_for_migration_complete(pair.from);
    tlm_wait_for_stage(pair.from, "done");
    tlm_check_completed(pair.from);

    migrate_incoming_qmp(pair.to, uri, NULL, "{}");
    wait_for_migration_complete(pair.to);
    if (stop) {
        qtest_qmp_assert_success(pair.to, "{ 'execute': 'cont' }");
    }
    tlm_check_resumes(pair.to);
    tlm_end(&pair);
}

static void test_file(void)
{
    run(NULL, false);
}

static void test_file_paused(void)
{
    run(NULL, true);
}

static bool prepare_direct_io(TlmPair *pair)
{
    migrate_set_parameter_bool(pair->from, "direct-io", true);
    migrate_set_parameter_bool(pair->to, "direct-io", true);
    return true;
}

static void test_file_direct_io(void)
{
    if (!probe_o_direct_support(tlm_tmpfs())) {
        g_test_skip("Filesystem does not support O_DIRECT");
        return;
    }
    run(prepare_direct_io, false);
}

void tlm_test_add_file(MigrationTestEnv *env)
{
    if (!env->full_set) {
        return;
    }
    migration_test_add("/migration/tlm/file", test_file);
    migration_test_add("/migration/tlm/file/paused", test_file_paused);
    migration_test_add("/migration/tlm/file/direct-io", test_file_direct_io);
}
