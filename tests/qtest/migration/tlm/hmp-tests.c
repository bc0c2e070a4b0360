/*
 * QTest testcases for TLM: the monitor for humans
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "framework.h"
#include "guest.h"
#include "tests.h"

static void check_hmp(QTestState *vm, const char *command, const char *says)
{
    g_autofree char *out = qtest_hmp(vm, "%s", command);

    if (!strstr(out, says)) {
        g_test_message("%s: '%s' does not say '%s'", command, out, says);
    }
    g_assert_nonnull(strstr(out, says));
}

static void test_hmp_params(void)
{
    static const struct {
        const char *name, *value, *shown;
    } params[] = {
        { "tlm-time-bound", "60000", "tlm-time-bound: 60000 ms" },
        { "tlm-bound-action", "cancel", "tlm-bound-action: cancel" },
        { "tlm-converge", "auto", "tlm-converge: auto" },
        { "tlm-dtx", "off", "tlm-dtx: off" },
        { "tlm-dtx-channels", "3", "tlm-dtx-channels: 3" },
        { "tlm-epoch", "250", "tlm-epoch: 250 ms" },
    };
    QTestState *vm = qtest_init("-machine none");

    for (unsigned i = 0; i < ARRAY_SIZE(params); i++) {
        g_autofree char *before = qtest_hmp(vm, "info migrate_parameters");
        g_autofree char *set = g_strdup_printf(
            "migrate_set_parameter %s %s", params[i].name, params[i].value);
        g_autofree char *bad = g_strdup_printf(
            "migrate_set_parameter %s nonsense", params[i].name);

        g_assert_null(strstr(before, params[i].shown));
        check_hmp(vm, bad, params[i].name);
        check_hmp(vm, set, "");
        check_hmp(vm, "info migrate_parameters", params[i].shown);
    }
    check_hmp(vm, "migrate_set_parameter tlm-epoch 1", "tlm-epoch");
    check_hmp(vm, "info migrate_parameters", "tlm-epoch: 250 ms");
    check_hmp(vm, "migrate_set_parameter tlm-none 1", "tlm-none");
    check_hmp(vm, "migrate_set_capability tlm on", "");
    check_hmp(vm, "info migrate_capabilities", "tlm: on");
    check_hmp(vm, "migrate_tlm_switchover", "live stage");
    qtest_quit(vm);
}

static void live_hmp(TlmPair *pair)
{
    static const char *const says[] = {
        "tlm stage: live", "tlm progress: ", "tlm decision: ", "tlm eta: ",
        "tlm bound: 100000 ms, slack ", "tlm mtx: ", "tlm dtx: ",
        "tlm unsent: ", "tlm dirty: ", "tlm bandwidth: ", "tlm guest: at ",
    };
    QTestState *from = pair->from;

    migrate_set_parameter_int(from, "tlm-time-bound", 100000);
    for (unsigned i = 0; i < ARRAY_SIZE(says); i++) {
        check_hmp(from, "info migrate", says[i]);
    }
    check_hmp(from, "migrate_tlm_switchover", "");
    tlm_wait_for_stage(from, "done");
    check_hmp(from, "info migrate", "tlm stage: done");
    check_hmp(from, "info migrate", "tlm decision: asked for");
    check_hmp(from, "info migrate", "tlm downtime: ");
}

static void test_hmp(void)
{
    tlm_test(&(TlmTest) { .live = live_hmp });
}

static void hmp_checkpoint_refused(QTestState *from)
{
    check_hmp(from, "tlm_checkpoint mode=copy", "'uri' or 'channels'");
    check_hmp(from, "tlm_checkpoint tcp:127.0.0.1:1,mode=none", "'none'");
    check_hmp(from, "tlm_checkpoint tcp:127.0.0.1:1,speed=1", "speed");
    check_hmp(from, "tlm_checkpoint uri=nonsense", "nonsense");
    check_hmp(from, "tlm_checkpoint_forget", "");
}

/* What is in the file, others test; here, what is said of it */
static void test_hmp_checkpoint(void)
{
    static const char *const flushing[] = {
        "tlm stage: flush", "tlm checkpoint method: copy",
        "tlm checkpoint copied: ", "tlm checkpoint flushed: ",
        "tlm checkpoint is a full one: No checkpoint was made",
        "tlm downtime: vm stop ",
    };
    g_autofree char *uri = g_strdup_printf("file:%s/%s", tlm_tmpfs(),
                                           FILE_TEST_FILENAME);
    g_autofree char *command = g_strdup_printf(
        "tlm_checkpoint %s,mode=copy,buffer-size=1G,sync=off,hold=on,"
        "incremental=on,parent=none", uri);
    TlmTest t = { .uri = uri, .no_tlm = true };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    hmp_checkpoint_refused(pair.from);
    migrate_set_parameter_int(pair.from, "max-bandwidth", TLM_FAST);
    tlm_stages_clear();
    check_hmp(pair.from, command, "");
    tlm_wait_for_stage(pair.from, "ready");
    check_hmp(pair.from, "info migrate", "tlm stage: ready");
    migrate_set_parameter_int(pair.from, "max-bandwidth", TLM_HELD);
    check_hmp(pair.from, "migrate_tlm_switchover", "");
    tlm_wait_for_stage(pair.from, "flush");
    for (unsigned i = 0; i < ARRAY_SIZE(flushing); i++) {
        check_hmp(pair.from, "info migrate", flushing[i]);
    }
    check_hmp(pair.from, "tlm_checkpoint_forget", "in progress");
    check_hmp(pair.from, command, "in progress");
    migrate_set_parameter_int(pair.from, "max-bandwidth", TLM_FAST);
    wait_for_migration_complete(pair.from);
    check_hmp(pair.from, "info migrate", "tlm checkpoint generation: ");
    check_hmp(pair.from, "tlm_checkpoint_forget", "");
    tlm_check_guest_runs(pair.from);
    migrate_end(pair.from, pair.to, false);
}

void tlm_test_add_hmp(MigrationTestEnv *env)
{
    if (!env->full_set) {
        return;
    }
    migration_test_add("/migration/tlm/hmp", test_hmp);
    migration_test_add("/migration/tlm/hmp/checkpoint", test_hmp_checkpoint);
    migration_test_add("/migration/tlm/hmp/params", test_hmp_params);
}
