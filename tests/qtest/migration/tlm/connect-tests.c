/*
 * QTest testcases for TLM: a destination that cannot be connected
 *
 * The migration stays in setup.  A cancel ends it, and so does a time bound.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include <sys/socket.h>

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "framework.h"
#include "guest.h"
#include "leftovers.h"
#include "tests.h"
#include "tls.h"

/* ms: long enough to see that the migration is in setup first */
#define SETUP_BOUND 1000

static void migrate_to_setup(TlmPair *pair, const char *uri, bool bound)
{
    if (bound) {
        migrate_set_parameter_int(pair->from, "tlm-time-bound", SETUP_BOUND);
    }
    tlm_migrate(pair, uri, TLM_HELD);
    for (unsigned i = 0; i < 10; i++) {
        g_autofree char *status = migrate_query_status(pair->from);

        g_assert_cmpstr(status, ==, "setup");
    }
}

/* With a time bound, nobody waits longer than that for a connection */
static void check_bound_ends_setup(QTestState *from)
{
    QDict *rsp;

    tlm_wait_for_status(from, "failed");
    rsp = migrate_query(from);
    g_assert_nonnull(strstr(qdict_get_str(rsp, "error-desc"),
                            "could not be connected within"));
    qobject_unref(rsp);
    tlm_check_guest_runs(from);
    migrate_set_parameter_int(from, "tlm-time-bound", 0);
}

static void end_setup(TlmPair *pair, bool bound)
{
    if (bound) {
        check_bound_ends_setup(pair->from);
    } else {
        migrate_cancel(pair->from);
        tlm_wait_for_status(pair->from, "cancelled");
    }
}

/*
 * Somewhere that does not accept connections: its queue of them is full
 */
typedef struct Deaf {
    char *uri;
    int listener, queued[4];
} Deaf;

static void deaf_open(Deaf *d)
{
    unsigned port;

    d->listener = tlm_listen_loopback(&port, 0);
    d->uri = g_strdup_printf("tcp:127.0.0.1:%u", port);
    for (unsigned i = 0; i < ARRAY_SIZE(d->queued); i++) {
        struct sockaddr_in addr = tlm_loopback(port);

        d->queued[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC |
                                       SOCK_NONBLOCK, 0);
        g_assert_cmpint(d->queued[i], >=, 0);
        if (connect(d->queued[i], (struct sockaddr *)&addr, sizeof(addr))) {
            g_assert_cmpint(errno, ==, EINPROGRESS);
        }
    }
}

/* Who still connects is refused */
static void deaf_close(Deaf *d)
{
    for (unsigned i = 0; i < ARRAY_SIZE(d->queued); i++) {
        close(d->queued[i]);
    }
    close(d->listener);
    g_free(d->uri);
}

/* A thread of QEMU is still in connect(): the next one has to wait */
static void check_refused_meanwhile(QTestState *from)
{
    g_assert_true(tlm_has_yank_instance(from));
    tlm_check_error(qtest_qmp_assert_failure_ref(
                        from, "{ 'execute': 'migrate',"
                              "  'arguments': { 'uri': 'tcp:127.0.0.1:1' } }"),
                    "not been cleaned up");
}

static void check_deaf(bool bound)
{
    TlmTest t = { .start.hide_stderr = true };
    TlmPair pair;
    Deaf deaf;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    deaf_open(&deaf);
    migrate_to_setup(&pair, deaf.uri, bound);
    end_setup(&pair, bound);
    tlm_assert_stages("");
    if (bound) {
        check_refused_meanwhile(pair.from);
    }
    deaf_close(&deaf);
    qtest_quit(pair.to);
    tlm_recover(&pair, &t);
}

static void test_bound_deaf(void)
{
    check_deaf(true);
}

static void test_cancel_deaf(void)
{
    check_deaf(false);
}

#ifdef CONFIG_GNUTLS
/*
 * Connections are accepted, and then nothing is said in the handshake: on
 * none of them, or on all but the main one.
 */
static void check_silent_tls(TlmProxyFlow said, bool bound)
{
    TlmTest t = {
        .start.hide_stderr = true, .proxy = true,
        .prepare = tlm_tls_psk_prepare,
    };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_proxy_forward(pair.proxy, said);
    migrate_to_setup(&pair, NULL, bound);
    end_setup(&pair, bound);
    if (said == TLM_PROXY_NONE) {
        /* Else QEMU may find out when RAM has been set up */
        tlm_assert_stages("");
    }
    tlm_lose_target(&pair);
    migrate_set_parameter_str(pair.from, "tls-creds", "");
    tlm_recover(&pair, &t);
    tlm_tls_psk_end();
}

static void test_bound_silent_tls(void)
{
    check_silent_tls(TLM_PROXY_NONE, true);
}

static void test_bound_silent_tls_channels(void)
{
    check_silent_tls(TLM_PROXY_ONLY_FIRST, true);
}

static void test_cancel_silent_tls(void)
{
    check_silent_tls(TLM_PROXY_NONE, false);
}

static void test_cancel_silent_tls_channels(void)
{
    check_silent_tls(TLM_PROXY_ONLY_FIRST, false);
}
#endif

void tlm_test_add_connect(MigrationTestEnv *env)
{
    if (!env->full_set) {
        return;
    }
    migration_test_add("/migration/tlm/bound/setup-deaf", test_bound_deaf);
    migration_test_add("/migration/tlm/cancel/setup/deaf", test_cancel_deaf);
#ifdef CONFIG_GNUTLS
    migration_test_add("/migration/tlm/bound/silent-tls",
                       test_bound_silent_tls);
    migration_test_add("/migration/tlm/bound/silent-tls-channels",
                       test_bound_silent_tls_channels);
    migration_test_add("/migration/tlm/cancel/silent-tls",
                       test_cancel_silent_tls);
    migration_test_add("/migration/tlm/cancel/silent-tls-channels",
                       test_cancel_silent_tls_channels);
#endif
}
