/*
 * QTest testcases for TLM: refused capabilities, parameters and starts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "qapi/error.h"
#include "qobject/qjson.h"
#include "check-param.h"
#include "framework.h"
#include "query.h"
#include "tests.h"

/* From QEMU 10.1 on multifd and post-copy go together */
#define HAS_POSTCOPY (QEMU_VERSION_MAJOR > 10 || QEMU_VERSION_MINOR >= 1)

static QDict *set_cap(QTestState *who, const char *cap, bool on)
{
    return qtest_qmp(who, "{ 'execute': 'migrate-set-capabilities',"
                          "  'arguments': { 'capabilities': [ {"
                          "      'capability': %s, 'state': %i } ] } }",
                     cap, on);
}

static void check_cap_refused(QDict *rsp, const char *cap)
{
    g_autofree char *words = g_strdup_printf("'tlm',%s", cap);
    QDict *err = qdict_get_qdict(rsp, "error");

    g_assert_nonnull(err);
    qobject_ref(err);
    tlm_check_error(err, words);
    qobject_unref(rsp);
}

static void test_caps_excluded(void)
{
    static const struct {
        const char *cap;
        bool optional;              /* not every host or build offers it */
    } excluded[] = {
#if !HAS_POSTCOPY
        { "postcopy-ram" },
#endif
        { "xbzrle" }, { "auto-converge" },
        { "dirty-limit", true }, { "background-snapshot", true },
        { "x-colo", true }, { "rdma-pin-all" }, { "release-ram" },
    };
    QTestState *vm = qtest_init("-machine none");

    for (unsigned i = 0; i < ARRAY_SIZE(excluded); i++) {
        const char *cap = excluded[i].cap;
        QDict *rsp = set_cap(vm, cap, true);

        if (qdict_haskey(rsp, "error")) {
            g_test_message("%s", qdict_get_str(qdict_get_qdict(rsp, "error"),
                                               "desc"));
            g_assert_true(excluded[i].optional);
            qobject_unref(rsp);
            continue;
        }
        qobject_unref(rsp);

        /* It first, then 'tlm' */
        check_cap_refused(set_cap(vm, "tlm", true), cap);
        migrate_set_capability(vm, cap, false);
        /* 'tlm' first */
        migrate_set_capability(vm, "tlm", true);
        check_cap_refused(set_cap(vm, cap, true), cap);
        migrate_set_capability(vm, "tlm", false);
        /* Both at once */
        rsp = qtest_qmp(vm, "{ 'execute': 'migrate-set-capabilities',"
                            "  'arguments': { 'capabilities': ["
                            "    { 'capability': 'tlm', 'state': true },"
                            "    { 'capability': %s, 'state': true } ] } }",
                        cap);
        check_cap_refused(rsp, cap);
        /* Nothing has stuck */
        migrate_set_capability(vm, cap, true);
        migrate_set_capability(vm, cap, false);
    }
    qtest_quit(vm);
}

static void check_start_refused(QTestState *vm, const char *uri,
                                const char *words)
{
    QDict *rsp;

    tlm_check_error(qtest_qmp_assert_failure_ref(
                    vm, "{ 'execute': 'migrate',"
                        "  'arguments': { 'uri': %s } }", uri), words);
    rsp = migrate_query(vm);
    g_assert_false(tlm_info_present(rsp));
    qobject_unref(rsp);
}

static void test_start_refused(void)
{
    g_autofree char *file = g_strdup_printf("file:%s/%s", tlm_tmpfs(),
                                            FILE_TEST_FILENAME);
    g_autofree char *unix_uri = g_strdup_printf("unix:%s/migsocket",
                                                tlm_tmpfs());
    const char *uri = "tcp:127.0.0.1:1";
    QTestState *vm = qtest_init("-machine none");

    /* Either order: what is missing is only said at the start */
    migrate_set_capability(vm, "tlm", true);
    check_start_refused(vm, uri, "'tlm','multifd'");
    migrate_set_capability(vm, "multifd", true);

    migrate_set_parameter_int(vm, "multifd-channels", 1);
    check_start_refused(vm, uri, "'tlm',multifd-channels,2");
    for (unsigned channels = 2; channels <= 8; channels *= 2) {
        g_autofree char *words = g_strdup_printf(
            "tlm-dtx-channels,multifd-channels,%u", channels);

        migrate_set_parameter_int(vm, "multifd-channels", channels);
        migrate_set_parameter_int(vm, "tlm-dtx-channels", channels);
        check_start_refused(vm, uri, words);
        migrate_set_parameter_int(vm, "tlm-dtx-channels", 255);
        check_start_refused(vm, uri, words);
    }
    migrate_set_parameter_int(vm, "tlm-dtx-channels", 0);

#if HAS_POSTCOPY
    /* The capability may still come */
    migrate_set_parameter_str(vm, "tlm-converge", "postcopy");
    check_start_refused(vm, uri, "'tlm-converge','postcopy-ram'");
    migrate_set_parameter_str(vm, "tlm-converge", "none");
    migrate_set_parameter_str(vm, "tlm-bound-action", "postcopy");
    check_start_refused(vm, uri, "'tlm-bound-action','postcopy-ram'");
    migrate_set_parameter_str(vm, "tlm-bound-action", "complete");
#endif

    migrate_set_parameter_str(vm, "zero-page-detection", "legacy");
    /* 'multifd' loses pages to an older destination: never advised alone */
    check_start_refused(vm, uri, "'tlm',zero-page-detection,legacy,'none',"
                        "'multifd' if the destination is QEMU 9.0 or later");
    migrate_set_capability(vm, "tlm", false);
    migrate_set_capability(vm, "tlm", true);
    check_start_refused(vm, unix_uri, "'tlm',zero-page-detection,legacy");
    migrate_set_parameter_str(vm, "zero-page-detection", "multifd");

    migrate_set_parameter_str(vm, "mode", "cpr-reboot");
    check_start_refused(vm, uri, "'tlm',mode");
    migrate_set_parameter_str(vm, "mode", "normal");

    /* Only one connection */
    check_start_refused(vm, "exec:cat>/dev/null", "multi-channel");
    check_start_refused(vm, "fd:none", "multi-channel");
#ifdef CONFIG_RDMA
    check_start_refused(vm, "rdma:127.0.0.1:1", "multi-channel");
#endif
    check_start_refused(vm, file, "");
    qtest_quit(vm);
    unlink(file + strlen("file:"));
}

/* Channels of "migrate" */
#define CHANNEL(type, addr) \
    "{ 'channel-type': '" type "', 'addr': " addr " }"
#define INET "{ 'transport': 'socket', 'type': 'inet'," \
             "  'host': '127.0.0.1', 'port': '1' }"
#define FD "{ 'transport': 'socket', 'type': 'fd', 'str': 'none' }"
#define EXEC "{ 'transport': 'exec', 'args': [ '/bin/false' ] }"
#define RDMA "{ 'transport': 'rdma', 'host': '127.0.0.1', 'port': '1' }"
#define FILE_ADDR "{ 'transport': 'file', 'filename': '/nowhere/file'," \
                  "  'offset': 0 }"
#define MAIN CHANNEL("main", INET)
#define DATA CHANNEL("data", INET)

static void check_channels_refused(QTestState *vm, const char *command,
                                   const char *channels, const char *words)
{
    QDict *rsp;

    tlm_check_error(qtest_qmp_assert_failure_ref(
        vm, "{ 'execute': %s, 'arguments': { 'channels': %p } }", command,
        qobject_from_json(channels, &error_abort)), words);
    rsp = migrate_query(vm);
    g_assert_false(tlm_info_present(rsp));
    qobject_unref(rsp);
}

static void test_channels_refused(void)
{
    static const char *const addresses[] = { FD, EXEC, RDMA, FILE_ADDR };
    const char *both = "[" MAIN "," DATA "]";
    QTestState *vm = qtest_init("-machine none");
    QDict *rsp;

    check_channels_refused(vm, "migrate", "[" DATA "]", "no main entry");
    check_channels_refused(vm, "migrate", both, "'data',need,'multifd'");
    check_channels_refused(vm, "tlm-checkpoint", "[" DATA "]",
                           "no main channel");

    migrate_set_capability(vm, "multifd", true);
    migrate_set_parameter_int(vm, "multifd-channels", 2);
    for (unsigned i = 0; i < 2; i++) {
        const char *command = i ? "tlm-checkpoint" : "migrate";

        check_channels_refused(vm, command,
                               "[" DATA "," DATA "," MAIN "," DATA "]",
                               "3 channels,'data',multifd-channels,2");
        for (unsigned a = 0; a < ARRAY_SIZE(addresses); a++) {
            g_autofree char *channels = g_strdup_printf(
                "[" MAIN "," DATA "," CHANNEL("data", "%s") "]",
                addresses[a]);

            check_channels_refused(vm, command, channels,
                                   "'data',must be sockets,inet,unix,vsock");
        }
    }
    check_channels_refused(vm, "migrate", "[" MAIN "," DATA "," MAIN "]",
                           "more than one main");
    tlm_check_error(qtest_qmp_assert_failure_ref(
        vm, "{ 'execute': 'migrate',"
            "  'arguments': { 'channels': %p, 'resume': true } }",
        qobject_from_json(both, &error_abort)), "'data','resume'");
    migrate_set_capability(vm, "mapped-ram", true);
    check_channels_refused(vm, "migrate",
                           "[" CHANNEL("main", FILE_ADDR) "," DATA "]",
                           "main channel must be a socket");
    migrate_set_capability(vm, "mapped-ram", false);

    /* From QEMU 10.2 on it goes with multifd */
    rsp = set_cap(vm, "postcopy-ram", true);
    if (!qdict_haskey(rsp, "error")) {
        migrate_set_capability(vm, "postcopy-preempt", true);
        check_channels_refused(vm, "migrate", both,
                               "'data','postcopy-preempt'");
    }
    qobject_unref(rsp);
    qtest_quit(vm);
}

static void test_incoming_refused(void)
{
    QTestState *vm = qtest_init("-machine none -incoming defer");

    migrate_set_capability(vm, "multifd", true);
    tlm_check_error(qtest_qmp_assert_failure_ref(
        vm, "{ 'execute': 'migrate-incoming',"
            "  'arguments': { 'channels': %p } }",
        qobject_from_json("[" DATA "]", &error_abort)),
        "only one entry,'main'");
    qtest_quit(vm);
}

static void test_params(void)
{
    static const uint64_t epochs[] = { 20, 21, 9999, 10000, 0 };
    QTestState *vm = qtest_init("-machine none");

    for (unsigned i = 0; i < ARRAY_SIZE(epochs); i++) {
        migrate_set_parameter_int(vm, "tlm-epoch", epochs[i]);
    }
    check_param_refused(vm, "tlm-epoch", "1");
    check_param_refused(vm, "tlm-epoch", "19");
    check_param_refused(vm, "tlm-epoch", "10001");
    check_param_refused(vm, "tlm-epoch", "-1");
    check_param_refused(vm, "tlm-epoch", "18446744073709551615");
    check_param_refused(vm, "tlm-epoch", "'20'");

    migrate_set_parameter_int(vm, "tlm-time-bound", 1);
    migrate_set_parameter_int(vm, "tlm-time-bound", 365LL * 24 * 3600 * 1000);
    migrate_set_parameter_int(vm, "tlm-time-bound", 0);
    check_param_refused(vm, "tlm-time-bound", "-1");
    check_param_refused(vm, "tlm-time-bound", "31536000001");
    check_param_refused(vm, "tlm-time-bound", "18446744073709551615");

    migrate_set_parameter_int(vm, "tlm-dtx-channels", 255);
    migrate_set_parameter_int(vm, "tlm-dtx-channels", 0);
    check_param_refused(vm, "tlm-dtx-channels", "256");
    check_param_refused(vm, "tlm-dtx-channels", "-1");

    migrate_set_parameter_bool(vm, "tlm-dtx", false);
    migrate_set_parameter_bool(vm, "tlm-dtx", true);
    check_param_refused(vm, "tlm-dtx", "1");

    migrate_set_parameter_str(vm, "tlm-converge", "auto");
    migrate_set_parameter_str(vm, "tlm-converge", "none");
    check_param_refused(vm, "tlm-converge", "'always'");
#if !HAS_POSTCOPY
    check_param_refused_saying(vm, "tlm-converge", "'postcopy'",
                               "from QEMU 10.1 on, at both sides");
    check_param_refused_saying(vm, "tlm-bound-action", "'postcopy'",
                               "from QEMU 10.1 on, at both sides");
#endif

    migrate_set_parameter_str(vm, "tlm-bound-action", "cancel");
    migrate_set_parameter_str(vm, "tlm-bound-action", "complete");
    check_param_refused(vm, "tlm-bound-action", "'pause'");

    /* One bad one, and none is taken over */
    qobject_unref(qtest_qmp_assert_failure_ref(
        vm, "{ 'execute': 'migrate-set-parameters',"
            "  'arguments': { 'tlm-dtx': false, 'tlm-epoch': 1 } }"));
    migrate_set_parameter_int(vm, "tlm-epoch", 0);
    {
        QDict *rsp = qtest_qmp_assert_success_ref(
            vm, "{ 'execute': 'query-migrate-parameters' }");

        g_assert_true(qdict_get_bool(rsp, "tlm-dtx"));
        qobject_unref(rsp);
    }
    qtest_quit(vm);
}

#ifndef CONFIG_TLM_OVERCOMMIT
static void test_no_overcommit(void)
{
    const char *why = "built without over-commit";
    QTestState *vm = qtest_init("-machine none");

    check_param_refused_saying(vm, "tlm-overcommit",
                               "[ { 'progress': 0, 'cpus': 1 } ]", why);
    check_param_refused_saying(vm, "tlm-overcommit-method", "'throttle'", why);
    check_param_refused_saying(vm, "tlm-overcommit-cpus", "'0'", why);
    check_param_refused_saying(vm, "tlm-cgroup", "'/sys/fs/cgroup'", why);
    /* The defaults are not refused */
    check_param_taken(vm, "tlm-overcommit", "[]");
    check_param_taken(vm, "tlm-overcommit-method", "'auto'");
    check_param_taken(vm, "tlm-overcommit-cpus", "''");
    check_param_taken(vm, "tlm-cgroup", "''");
    qtest_quit(vm);
}
#endif

void tlm_test_add_refused(MigrationTestEnv *env)
{
    migration_test_add("/migration/tlm/refused/caps", test_caps_excluded);
    migration_test_add("/migration/tlm/refused/start", test_start_refused);
    migration_test_add("/migration/tlm/refused/channels",
                       test_channels_refused);
    migration_test_add("/migration/tlm/refused/incoming",
                       test_incoming_refused);
    migration_test_add("/migration/tlm/refused/params", test_params);
#ifndef CONFIG_TLM_OVERCOMMIT
    migration_test_add("/migration/tlm/refused/params/overcommit",
                       test_no_overcommit);
#endif
}
