/*
 * QTest for TLM: TLS credentials for both sides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "crypto/tlscredspsk.h"
#include "migration/migration-qmp.h"
#include "tests/unit/crypto-tls-psk-helpers.h"
#include "tls.h"
#ifdef CONFIG_TASN1
# include "tests/unit/crypto-tls-x509-helpers.h"
#endif

static char *dir;

static char *file_name(const char *name)
{
    return g_strdup_printf("%s/%s", dir, name);
}

static void make_dir(void)
{
    dir = g_strdup_printf("%s/tlm-tls", tlm_tmpfs());
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
}

static void remove_dir(void)
{
    rmdir(dir);
    g_clear_pointer(&dir, g_free);
}

static void add_creds(QTestState *who, const char *type,
                      const char *endpoint)
{
    bool client = g_str_equal(endpoint, "client");
    bool psk = g_str_equal(type, "tls-creds-psk");

    if (psk && client) {
        qtest_qmp_assert_success(
            who, "{ 'execute': 'object-add',"
            "  'arguments': { 'qom-type': %s, 'id': 'creds',"
            "                 'endpoint': %s, 'dir': %s,"
            "                 'username': 'qemu' } }",
            type, endpoint, dir);
    } else {
        qtest_qmp_assert_success(
            who, "{ 'execute': 'object-add',"
            "  'arguments': { 'qom-type': %s, 'id': 'creds',"
            "                 'endpoint': %s, 'dir': %s,"
            "                 'verify-peer': %i } }",
            type, endpoint, dir, !psk);
    }
    migrate_set_parameter_str(who, "tls-creds", "creds");
}

bool tlm_tls_psk_prepare(TlmPair *pair)
{
    g_autofree char *key = NULL;

    make_dir();
    key = file_name(QCRYPTO_TLS_CREDS_PSKFILE);
    test_tls_psk_init(key);
    add_creds(pair->from, "tls-creds-psk", "client");
    add_creds(pair->to, "tls-creds-psk", "server");
    return true;
}

void tlm_tls_psk_end(void)
{
    g_autofree char *key = file_name(QCRYPTO_TLS_CREDS_PSKFILE);

    test_tls_psk_cleanup(key);
    remove_dir();
}

#ifdef CONFIG_TASN1
bool tlm_tls_x509_prepare(TlmPair *pair)
{
    g_autofree char *key = NULL;
    g_autofree char *cacert = NULL;
    g_autofree char *servercert = NULL;
    g_autofree char *serverkey = NULL;
    g_autofree char *clientcert = NULL;
    g_autofree char *clientkey = NULL;

    make_dir();
    key = file_name("key.pem");
    cacert = file_name("ca-cert.pem");
    servercert = file_name("server-cert.pem");
    serverkey = file_name("server-key.pem");
    clientcert = file_name("client-cert.pem");
    clientkey = file_name("client-key.pem");
    test_tls_init(key);
    g_assert_cmpint(link(key, serverkey), ==, 0);
    g_assert_cmpint(link(key, clientkey), ==, 0);

    TLS_ROOT_REQ_SIMPLE(cacertreq, cacert);
    TLS_CERT_REQ_SIMPLE_CLIENT(clientcertreq, cacertreq, "tlm.example.org",
                               clientcert);
    TLS_CERT_REQ_SIMPLE_SERVER(servercertreq, cacertreq, servercert, NULL,
                               "127.0.0.1");
    test_tls_deinit_cert(&clientcertreq);
    test_tls_deinit_cert(&servercertreq);
    test_tls_deinit_cert(&cacertreq);

    add_creds(pair->from, "tls-creds-x509", "client");
    add_creds(pair->to, "tls-creds-x509", "server");
    return true;
}

void tlm_tls_x509_end(void)
{
    static const char *const names[] = {
        "ca-cert.pem", "server-cert.pem", "server-key.pem",
        "client-cert.pem", "client-key.pem",
    };
    g_autofree char *key = file_name("key.pem");

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *file = file_name(names[i]);

        unlink(file);
    }
    test_tls_cleanup(key);
    remove_dir();
}
#endif
