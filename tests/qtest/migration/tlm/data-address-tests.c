/*
 * QTest testcases for TLM: multifd channels with addresses of their own
 *
 * The main channel goes straight to the destination.  Each address for
 * multifd channels is a proxy's, which tells what has come by which channel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "framework.h"
#include "leftovers.h"
#include "tests.h"
#include "tls.h"

#define MAX_DATA 3

static TlmProxy *data[MAX_DATA];

static void add_channel(QList *channels, const char *type, const char *host,
                        const char *port)
{
    qlist_append_obj(channels, qobject_from_jsonf_nofail(
        "{ 'channel-type': %s, 'addr': { 'transport': 'socket',"
        "  'type': 'inet', 'host': %s, 'port': %s } }", type, host, port));
}

static const char *port_of(const char *uri)
{
    return strrchr(uri, ':') + 1;
}

/* @hosts: by which name the source connects to each address */
static void open_data(TlmPair *pair, const char *const *hosts, unsigned count)
{
    g_autofree char *target = migrate_get_connect_uri(pair->to);
    QList *channels = qlist_new();

    add_channel(channels, "main", "127.0.0.1", port_of(target));
    for (unsigned i = 0; i < count; i++) {
        data[i] = tlm_proxy_new(target);
        add_channel(channels, "data", hosts[i],
                    port_of(tlm_proxy_uri(data[i])));
    }
    pair->channels = QOBJECT(channels);
}

/* Each of @channels has come by its own address, and by no other */
static void check_data(unsigned channels)
{
    unsigned count = 0;

    while (count < MAX_DATA && data[count]) {
        count++;
    }
    for (unsigned at = 0; at < count; at++) {
        for (unsigned id = 0; id < channels; id++) {
            g_assert_cmpint(tlm_proxy_bytes(data[at], id) > 0, ==,
                            id % count == at);
        }
    }
}

static void close_data(void)
{
    for (unsigned i = 0; i < MAX_DATA; i++) {
        g_clear_pointer(&data[i], tlm_proxy_free);
    }
}

static const char *const loopback[MAX_DATA] = {
    "127.0.0.1", "127.0.0.1", "127.0.0.1",
};

static void listens_two(TlmPair *pair)
{
    open_data(pair, loopback, 2);
}

static void listens_three(TlmPair *pair)
{
    open_data(pair, loopback, 3);
}

static void end_four(void)
{
    check_data(4);
    close_data();
}

static void test_two(void)
{
    tlm_test(&(TlmTest) {
        .channels = 4, .listens = listens_two, .end = end_four,
    });
}

static void test_three(void)
{
    tlm_test(&(TlmTest) {
        .channels = 4, .listens = listens_three, .end = end_four,
    });
}

static void test_off(void)
{
    tlm_test(&(TlmTest) {
        .channels = 4, .listens = listens_two, .end = end_four,
        .no_tlm = true,
    });
}

/* The next migration does not know of the addresses of the one before */
static void test_forgotten(void)
{
    TlmTest t = { .channels = 4, .start.hide_stderr = true,
                  .listens = listens_two };
    TlmPair pair;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate_live(&pair);
    tlm_proxy_reset(data[1], 3);
    tlm_wait_for_status(pair.from, "failed");
    tlm_lose_target(&pair);
    close_data();
    tlm_recover(&pair, &t);
}

#if defined(CONFIG_GNUTLS) && defined(CONFIG_TASN1)
/* The certificate is for 127.0.0.1.  This is the same host. */
static const char *const other_name[MAX_DATA] = { "127.0.0.1", "127.1" };

static void listens_other_name(TlmPair *pair)
{
    open_data(pair, other_name, 2);
}

/* Each address is verified by its own host name */
static void test_tls_name(void)
{
    TlmTest t = {
        .channels = 4, .start.hide_stderr = true,
        .prepare = tlm_tls_x509_prepare, .listens = listens_other_name,
    };
    TlmPair pair;
    QDict *rsp;

    if (!tlm_start(&pair, &t)) {
        return;
    }
    tlm_migrate(&pair, NULL, TLM_HELD);
    tlm_wait_for_status(pair.from, "failed");
    rsp = migrate_query(pair.from);
    g_assert_nonnull(strstr(qdict_get_str(rsp, "error-desc"), "127.1"));
    qobject_unref(rsp);
    tlm_lose_target(&pair);
    close_data();
    migrate_set_parameter_str(pair.from, "tls-creds", "");
    tlm_recover(&pair, &t);
    tlm_tls_x509_end();
}

static bool prepare_given_name(TlmPair *pair)
{
    migrate_set_parameter_str(pair->from, "tls-hostname", "127.0.0.1");
    return tlm_tls_x509_prepare(pair);
}

static void end_given_name(void)
{
    close_data();               /* a proxy does not see through TLS */
    tlm_tls_x509_end();
}

/* All by the name that is given */
static void test_tls_given_name(void)
{
    tlm_test(&(TlmTest) {
        .channels = 4, .prepare = prepare_given_name,
        .listens = listens_other_name, .end = end_given_name,
    });
}
#endif

void tlm_test_add_data_address(MigrationTestEnv *env)
{
    migration_test_add("/migration/tlm/data-address/two", test_two);
    if (!env->full_set) {
        return;
    }
    migration_test_add("/migration/tlm/data-address/three", test_three);
    migration_test_add("/migration/tlm/data-address/off", test_off);
    migration_test_add("/migration/tlm/data-address/forgotten",
                       test_forgotten);
#if defined(CONFIG_GNUTLS) && defined(CONFIG_TASN1)
    migration_test_add("/migration/tlm/data-address/tls-name", test_tls_name);
    migration_test_add("/migration/tlm/data-address/tls-given-name",
                       test_tls_given_name);
#endif
}
