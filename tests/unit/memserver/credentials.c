/*
 * Credentials for tests of TLS, in directories as QEMU has them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <arpa/inet.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <gnutls/x509.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "credentials.h"

#define HOUR 3600
#define DAY (24 * HOUR)

struct Authority {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t certificate;
};

static void must(int ret)
{
    if (ret < 0) {
        g_error("%s", gnutls_strerror(ret));
    }
}

static gnutls_x509_privkey_t new_key(void)
{
    gnutls_x509_privkey_t key;

    must(gnutls_x509_privkey_init(&key));
    must(gnutls_x509_privkey_generate(
             key, GNUTLS_PK_ECDSA,
             GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    return key;
}

static gnutls_x509_crt_t new_certificate(gnutls_x509_privkey_t key,
                                         const char *name, int days)
{
    static uint8_t serial;
    time_t now = time(NULL);
    gnutls_x509_crt_t c;

    serial++;
    must(gnutls_x509_crt_init(&c));
    must(gnutls_x509_crt_set_version(c, 3));
    must(gnutls_x509_crt_set_key(c, key));
    must(gnutls_x509_crt_set_serial(c, &serial, sizeof(serial)));
    must(gnutls_x509_crt_set_activation_time(c, now - HOUR -
                                             (days < 0 ? 2 * DAY : 0)));
    must(gnutls_x509_crt_set_expiration_time(c, now - HOUR + days * DAY));
    must(gnutls_x509_crt_set_dn_by_oid(c, GNUTLS_OID_X520_COMMON_NAME, 0, name,
                                       strlen(name)));
    return c;
}

Authority *authority_new(const char *name)
{
    Authority *a = g_new0(Authority, 1);

    a->key = new_key();
    a->certificate = new_certificate(a->key, name, 2);
    must(gnutls_x509_crt_set_ca_status(a->certificate, 1));
    must(gnutls_x509_crt_set_key_usage(a->certificate,
                                       GNUTLS_KEY_KEY_CERT_SIGN));
    must(gnutls_x509_crt_sign2(a->certificate, a->certificate, a->key,
                               GNUTLS_DIG_SHA256, 0));
    return a;
}

void authority_free(Authority *a)
{
    gnutls_x509_crt_deinit(a->certificate);
    gnutls_x509_privkey_deinit(a->key);
    g_free(a);
}

/* Takes @pem over. */
static void write_pem(const char *dir, const char *file, gnutls_datum_t pem)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);

    g_assert_true(g_file_set_contents(path, (char *)pem.data, pem.size, NULL));
    gnutls_free(pem.data);
}

static void write_certificate(const char *dir, const char *file,
                              gnutls_x509_crt_t c)
{
    gnutls_datum_t pem;

    must(gnutls_x509_crt_export2(c, GNUTLS_X509_FMT_PEM, &pem));
    write_pem(dir, file, pem);
}

void authority_issue(Authority *a, const char *dir, const char *side,
                     const char *name, int days)
{
    g_autofree char *cert = g_strdup_printf("%s-cert.pem", side);
    g_autofree char *key_file = g_strdup_printf("%s-key.pem", side);
    gnutls_x509_privkey_t key = new_key();
    gnutls_x509_crt_t c = new_certificate(key, name, days);
    struct in_addr ip;
    gnutls_datum_t pem;

    if (inet_pton(AF_INET, name, &ip) == 1) {
        must(gnutls_x509_crt_set_subject_alt_name(c, GNUTLS_SAN_IPADDRESS, &ip,
                                                  sizeof(ip), 0));
    } else {
        must(gnutls_x509_crt_set_subject_alt_name(c, GNUTLS_SAN_DNSNAME, name,
                                                  strlen(name), 0));
    }
    must(gnutls_x509_crt_set_key_purpose_oid(
             c, strcmp(side, "server") ? GNUTLS_KP_TLS_WWW_CLIENT
                                       : GNUTLS_KP_TLS_WWW_SERVER, 0));
    must(gnutls_x509_crt_sign2(c, a->certificate, a->key, GNUTLS_DIG_SHA256,
                               0));
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    write_certificate(dir, "ca-cert.pem", a->certificate);
    write_certificate(dir, cert, c);
    must(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem));
    write_pem(dir, key_file, pem);
    gnutls_x509_crt_deinit(c);
    gnutls_x509_privkey_deinit(key);
}

void credentials_psk(const char *dir, const char *user, const char *byte)
{
    g_autofree char *path = g_build_filename(dir, "keys.psk", NULL);
    GString *line = g_string_new(user);

    g_string_append_c(line, ':');
    for (unsigned i = 0; i < 32; i++) {
        g_string_append(line, byte);
    }
    g_string_append_c(line, '\n');
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(path, line->str, line->len, NULL));
    g_string_free(line, true);
}
