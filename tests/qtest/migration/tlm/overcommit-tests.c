/*
 * QTest testcases for TLM: parameters of vCPU over-commit, and a cancel that
 * undoes it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include <sched.h>

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "qobject/qlist.h"
#include "check-param.h"
#include "framework.h"
#include "guest.h"
#include "query.h"
#include "tests.h"

/* The threads of the vCPUs; ends with 0 */
static pid_t *vcpu_threads(QTestState *vm)
{
    g_autoptr(GArray) tids = g_array_new(true, false, sizeof(pid_t));
    QDict *rsp = qtest_qmp(vm, "{ 'execute': 'query-cpus-fast' }");
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *cpu = qobject_to(QDict, qlist_entry_obj(entry));
        pid_t tid = qdict_get_int(cpu, "thread-id");

        g_array_append_val(tids, tid);
    }
    qobject_unref(rsp);
    return (pid_t *)g_array_free(g_steal_pointer(&tids), false);
}

/* On which CPUs a thread may run */
static char *thread_cpus(QTestState *vm, pid_t tid)
{
    static const char key[] = "\nCpus_allowed_list:\t";
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/status",
                                            qtest_pid(vm), tid);
    g_autofree char *text = NULL;
    const char *list;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    list = strstr(text, key);
    g_assert_nonnull(list);
    list += strlen(key);
    return g_strndup(list, strcspn(list, "\n"));
}

/* And in which cgroups each of them is */
static char *placement(QTestState *vm, const pid_t *tids)
{
    g_autoptr(GString) all = g_string_new(NULL);

    for (; *tids; tids++) {
        g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/cgroup",
                                                qtest_pid(vm), *tids);
        g_autofree char *cpus = thread_cpus(vm, *tids);
        g_autofree char *groups = NULL;

        /* A kernel may have no cgroups */
        g_file_get_contents(path, &groups, NULL, NULL);
        g_string_append_printf(all, "%d: %s\n%s", *tids, cpus,
                               groups ?: "");
    }
    return g_strdup(all->str);
}

/* All vCPUs on one host CPU, from the first page on */
static void start_overcommit(TlmPair *pair, const char *method,
                             const pid_t *tids)
{
    QTestState *from = pair->from;
    const char *used;
    int64_t start_us;

    migrate_set_parameter_str(from, "tlm-overcommit-method", method);
    qtest_qmp_assert_success(
        from, "{ 'execute': 'migrate-set-parameters', 'arguments': {"
              "  'tlm-overcommit': [ { 'progress': 0, 'cpus': 1 } ] } }");
    tlm_migrate(pair, NULL, TLM_HELD);
    tlm_wait_for_stage(from, "live");
    start_us = g_get_monotonic_time();
    while (tlm_query(from).overcommit_cpus != 1) {
        tlm_more_time(start_us);
    }
    used = tlm_query(from).overcommit_method;
    g_test_message("by %s", used);
    if (g_str_equal(used, "affinity") || strstr(used, "cpuset")) {
        for (unsigned i = 0; tids[i]; i++) {
            g_autofree char *cpus = thread_cpus(from, tids[i]);

            /* A single one */
            g_assert_cmpuint(strspn(cpus, "0123456789"), ==, strlen(cpus));
        }
    } else {
        g_assert_cmpstr(used, ==, "throttle");
    }
}

/* The placement of every vCPU thread is what it was */
static void test_cancel_overcommit(void *opaque)
{
    g_autofree char *method = g_path_get_basename(opaque);
    TlmTest t = {
        .start.hide_stderr = true,
        .start.opts_source = "-smp 3", .start.opts_target = "-smp 3",
    };
    g_autofree char *before = NULL, *after = NULL;
    g_autofree pid_t *tids = NULL;
    TlmPair pair;
    cpu_set_t one;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tids = vcpu_threads(pair.from);
    /* One of them pinned */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    g_assert_cmpint(sched_setaffinity(tids[1], sizeof(one), &one), ==, 0);
    before = placement(pair.from, tids);

    start_overcommit(&pair, method, tids);
    tlm_wait_for_arrival(&pair, TLM_MARKER_VALUE);
    migrate_cancel(pair.from);
    tlm_wait_for_status(pair.from, "cancelled");
    tlm_wait_for_stage(pair.from, "done");
    after = placement(pair.from, tids);
    g_assert_cmpstr(after, ==, before);
    g_assert_cmpuint(tlm_query(pair.from).overcommit_cpus, ==, 0);
    tlm_lose_target(&pair);
    tlm_recover(&pair, &t);
}

#define STEP(progress, cpus) \
    "{ 'progress': " progress ", 'cpus': " cpus " }"

static void test_params_overcommit(void)
{
    static const char *const taken[] = {
        "[" STEP("0", "1") "]",
        "[" STEP("100", "1") "]",
        "[" STEP("0.001", "8192") "]",
        /* Up and down; to both ends */
        "[" STEP("0", "2") "," STEP("50", "4") "," STEP("100", "1") "]",
        "[]",
    };
    static const char *const refused[] = {
        "[" STEP("-0.001", "1") "]",
        "[" STEP("100.001", "1") "]",
        "[" STEP("1e300", "1") "]",
        "[" STEP("50", "0") "]",
        "[" STEP("50", "8193") "]",
        "[" STEP("50", "4294967295") "]",
        "[" STEP("50", "2") "," STEP("20", "1") "]",
        "[" STEP("50", "2") "," STEP("50", "1") "]",
        "[" STEP("20", "2") "," STEP("101", "1") "]",
    };
    /* QEMU's own errors, which name the innermost member */
    static const char *const no_steps[] = {
        "[" STEP("'50'", "1") "]",
        "[" STEP("50", "-1") "]",
        "[" STEP("50", "4294967296") "]",
        "[" STEP("50", "4294967297") "]",
        "[" STEP("50", "1.5") "]",
        "[ { 'progress': 50 } ]",
        "[ { 'cpus': 1 } ]",
        "[ { 'progress': 50, 'cpus': 1, 'more': 1 } ]",
        "[ 50 ]",
        STEP("50", "1"),
        "'0.5-(2)'",
    };
    static const char *const methods[] = {
        "'cgroup'", "'quota'", "'affinity'", "'throttle'", "'event'", "'auto'",
    };
    static const char *const cpus[] = {
        "'0'", "'0-3,8'", "'8191'", "'0-8191'", "''",
    };
    static const char *const bad_cpus[] = {
        "'0-'", "'3-1'", "','", "'0,'", "'-1'", "'x'", "'8192'", "' '", "0",
    };
    QTestState *vm = qtest_init("-machine none");

    for (unsigned i = 0; i < ARRAY_SIZE(taken); i++) {
        check_param_taken(vm, "tlm-overcommit", taken[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        check_param_refused(vm, "tlm-overcommit", refused[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(no_steps); i++) {
        check_param_refused_saying(vm, "tlm-overcommit", no_steps[i], "");
    }
    for (unsigned i = 0; i < ARRAY_SIZE(methods); i++) {
        check_param_taken(vm, "tlm-overcommit-method", methods[i]);
    }
    check_param_refused(vm, "tlm-overcommit-method", "'cgroup-v2-cpuset'");
    check_param_refused(vm, "tlm-overcommit-method", "''");
    for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
        check_param_taken(vm, "tlm-overcommit-cpus", cpus[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bad_cpus); i++) {
        check_param_refused(vm, "tlm-overcommit-cpus", bad_cpus[i]);
    }
    /* If it exists is the migration's matter */
    check_param_taken(vm, "tlm-cgroup", "'/sys/fs/cgroup/none'");
    check_param_taken(vm, "tlm-cgroup", "''");
    check_param_refused(vm, "tlm-cgroup", "'sys/fs/cgroup'");
    check_param_refused(vm, "tlm-cgroup", "'.'");
    check_param_refused(vm, "tlm-cgroup", "1");
    qtest_quit(vm);
}

void tlm_test_add_overcommit(MigrationTestEnv *env)
{
    static const char *const methods[] = { "auto", "affinity", "throttle" };

    for (unsigned i = 0; env->full_set && i < ARRAY_SIZE(methods); i++) {
        migration_test_add_suffix("/migration/tlm/cancel/overcommit/",
                                  methods[i], test_cancel_overcommit);
    }
    migration_test_add("/migration/tlm/refused/params/overcommit",
                       test_params_overcommit);
}
