/*
 * QTest testcases for TLM: transports, and features of multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include <sys/socket.h>

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "framework.h"
#include "guest.h"
#include "tests.h"
#include "tls.h"

static void test_plain(void)
{
    tlm_test(&(TlmTest) {});
}

static void test_unix(void)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migsocket", tlm_tmpfs());

    tlm_test(&(TlmTest) { .uri = uri });
}

/* Capability off: nothing of TLM shows */
static void test_off(void)
{
    tlm_test(&(TlmTest) { .no_tlm = true });
}

/* The name ends with CHANNELS or CHANNELS-DTX_CHANNELS */
static void test_channels(void *opaque)
{
    g_autofree char *name = g_path_get_basename(opaque);
    g_auto(GStrv) number = g_strsplit(name, "-", 2);

    tlm_test(&(TlmTest) {
        .channels = atoi(number[0]),
        .dtx_channels = number[1] ? atoi(number[1]) : 0,
    });
}

static void set_both(TlmPair *pair, const char *name, const char *value)
{
    migrate_set_parameter_str(pair->from, name, value);
    migrate_set_parameter_str(pair->to, name, value);
}

static bool prepare_zlib(TlmPair *pair)
{
    set_both(pair, "multifd-compression", "zlib");
    return true;
}

static void test_zlib(void)
{
    tlm_test(&(TlmTest) { .channels = 4, .prepare = prepare_zlib });
}

#ifdef CONFIG_ZSTD
static bool prepare_zstd(TlmPair *pair)
{
    set_both(pair, "multifd-compression", "zstd");
    return true;
}

static void test_zstd(void)
{
    tlm_test(&(TlmTest) { .channels = 4, .prepare = prepare_zstd });
}
#endif

static bool prepare_no_zero_page(TlmPair *pair)
{
    migrate_set_parameter_str(pair->from, "zero-page-detection", "none");
    return true;
}

static void test_no_zero_page(void)
{
    tlm_test(&(TlmTest) { .prepare = prepare_no_zero_page });
}

static bool prepare_zero_copy(TlmPair *pair)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ret;
    QDict *rsp;

    g_assert_cmpint(fd, >=, 0);
    ret = setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one));
    close(fd);
    if (ret) {
        g_test_skip("the kernel does not offer SO_ZEROCOPY");
        return false;
    }
    rsp = qtest_qmp(pair->from,
                    "{ 'execute': 'migrate-set-capabilities',"
                    "  'arguments': { 'capabilities': [ {"
                    "      'capability': 'zero-copy-send',"
                    "      'state': true } ] } }");
    if (qdict_haskey(rsp, "error")) {
        g_test_skip(qdict_get_str(qdict_get_qdict(rsp, "error"), "desc"));
        qobject_unref(rsp);
        return false;
    }
    qobject_unref(rsp);
    return true;
}

static void test_zero_copy(void)
{
    tlm_test(&(TlmTest) { .prepare = prepare_zero_copy });
}

#ifdef CONFIG_GNUTLS
static void test_tls_psk(void)
{
    tlm_test(&(TlmTest) {
        .channels = 4, .prepare = tlm_tls_psk_prepare, .end = tlm_tls_psk_end,
    });
}

#ifdef CONFIG_TASN1
static void test_tls_x509(void)
{
    tlm_test(&(TlmTest) {
        .channels = 4,
        .prepare = tlm_tls_x509_prepare, .end = tlm_tls_x509_end,
    });
}
#endif
#endif

/* Machine types before 8.1 */
static void test_flush_each_section(void)
{
    const char *old = "-global migration.multifd-flush-after-each-section=on";

    tlm_test(&(TlmTest) {
        .start.opts_source = old, .start.opts_target = old, .channels = 4,
    });
}

/* What libvirt turns on, but for the pause, see below */
static void test_return_path(void)
{
    tlm_test(&(TlmTest) {
        .caps = { "return-path", "switchover-ack", "late-block-activate" },
    });
}

static void live_pause(TlmPair *pair)
{
    migrate_ensure_converge(pair->from);
    tlm_wait_for_status(pair->from, "pre-switchover");
    g_assert_false(tlm_guest_runs(pair->from));
    tlm_wait_for_stage(pair->from, "pre-switchover");
    tlm_assert_stages("setup,live,stop,pre-switchover,");
    migrate_continue(pair->from, "pre-switchover");
}

static void test_libvirt(void)
{
    tlm_test(&(TlmTest) {
        .caps = { "return-path", "switchover-ack", "late-block-activate",
                  "pause-before-switchover" },
        .live = live_pause,
    });
}

/* The guest is paused, and stays so at the destination */
static void test_paused(void)
{
    TlmPair pair;

    if (!tlm_start(&pair, &(TlmTest) {})) {
        return;
    }
    qtest_qmp_assert_success(pair.from, "{ 'execute': 'stop' }");
    tlm_migrate(&pair, NULL, TLM_FAST);
    wait_for_migration_complete(pair.from);
    tlm_wait_for_stage(pair.from, "done");
    tlm_check_completed(pair.from);
    wait_for_migration_complete(pair.to);
    g_assert_false(tlm_target_resumed());
    g_assert_false(tlm_guest_runs(pair.to));
    tlm_check_pattern(pair.to);
    qtest_qmp_assert_success(pair.to, "{ 'execute': 'cont' }");
    tlm_check_resumes(pair.to);
    tlm_end(&pair);
}

void tlm_test_add_transport(MigrationTestEnv *env)
{
    static const char *const channels[] = {
        "2", "3", "8", "16", "2-1", "8-1", "8-7", "16-15",
    };

    migration_test_add("/migration/tlm/plain", test_plain);
    migration_test_add("/migration/tlm/off", test_off);
    if (!env->full_set) {
        return;
    }

    migration_test_add("/migration/tlm/unix", test_unix);
    for (unsigned i = 0; i < ARRAY_SIZE(channels); i++) {
        migration_test_add_suffix("/migration/tlm/channels/", channels[i],
                                  test_channels);
    }
    migration_test_add("/migration/tlm/zlib", test_zlib);
#ifdef CONFIG_ZSTD
    migration_test_add("/migration/tlm/zstd", test_zstd);
#endif
    migration_test_add("/migration/tlm/zero-page/none", test_no_zero_page);
    migration_test_add("/migration/tlm/zero-copy", test_zero_copy);
#ifdef CONFIG_GNUTLS
    migration_test_add("/migration/tlm/tls/psk", test_tls_psk);
#ifdef CONFIG_TASN1
    migration_test_add("/migration/tlm/tls/x509", test_tls_x509);
#endif
#endif
    migration_test_add("/migration/tlm/flush-after-each-section",
                       test_flush_each_section);
    migration_test_add("/migration/tlm/return-path", test_return_path);
    migration_test_add("/migration/tlm/libvirt", test_libvirt);
    migration_test_add("/migration/tlm/paused", test_paused);
}
