/*
 * TLS with the credentials that QEMU uses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <gnutls/x509.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "tls.h"

/* As QEMU's crypto/tlssession.c */
#define PRIORITY_X509 "NORMAL"
#define PRIORITY_PSK "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK"

struct TlsCreds {
    bool server, psk;
    char *name;                         /* of a client */
    gnutls_certificate_credentials_t x509;
    gnutls_psk_server_credentials_t psk_server;
    gnutls_psk_client_credentials_t psk_client;
};

static bool done(int ret, const char *what, const char *dir, GError **errp)
{
    return ret >= 0 || ms_fail(errp, "TLS credentials in %s: %s: %s", dir,
                               what, gnutls_strerror(ret));
}

/* "x509:" and the distinguished name; NULL: it has none. */
static char *name_in(const gnutls_datum_t *certificate)
{
    gnutls_x509_crt_t crt;
    gnutls_datum_t dn = { NULL, 0 };
    char *name = NULL;

    if (gnutls_x509_crt_init(&crt) < 0) {
        return NULL;
    }
    if (gnutls_x509_crt_import(crt, certificate, GNUTLS_X509_FMT_DER) >= 0 &&
        gnutls_x509_crt_get_dn3(crt, &dn, 0) >= 0) {
        name = g_strdup_printf("x509:%.*s", (int)dn.size, dn.data);
        gnutls_free(dn.data);
    }
    gnutls_x509_crt_deinit(crt);
    return name;
}

static bool load_own_name(TlsCreds *c, const char *dir, GError **errp)
{
    gnutls_datum_t own;

    if (!done(gnutls_certificate_get_crt_raw(c->x509, 0, 0, &own),
              "client-cert.pem", dir, errp)) {
        return false;
    }
    c->name = name_in(&own);
    return c->name || ms_fail(errp, "TLS credentials in %s: client-cert.pem "
                              "has no name", dir);
}

static bool load_x509(TlsCreds *c, const char *dir, GError **errp)
{
    const char *side = c->server ? "server" : "client";
    g_autofree char *ca = g_build_filename(dir, "ca-cert.pem", NULL);
    g_autofree char *crl = g_build_filename(dir, "ca-crl.pem", NULL);
    g_autofree char *cert = g_strdup_printf("%s/%s-cert.pem", dir, side);
    g_autofree char *key = g_strdup_printf("%s/%s-key.pem", dir, side);

    if (!done(gnutls_certificate_allocate_credentials(&c->x509),
              "allocating", dir, errp) ||
        !done(gnutls_certificate_set_x509_trust_file(
                  c->x509, ca, GNUTLS_X509_FMT_PEM), "ca-cert.pem", dir,
              errp) ||
        !done(gnutls_certificate_set_x509_key_file(
                  c->x509, cert, key, GNUTLS_X509_FMT_PEM), cert, dir, errp) ||
        (!c->server && !load_own_name(c, dir, errp))) {
        return false;
    }
    return access(crl, F_OK) ||
        done(gnutls_certificate_set_x509_crl_file(
                 c->x509, crl, GNUTLS_X509_FMT_PEM), "ca-crl.pem", dir, errp);
}

/* The line of @user in keys.psk: NAME:HEX */
static bool client_key(TlsCreds *c, const char *path, const char *user,
                       GError **errp)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents(path, &text, NULL, errp)) {
        return false;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **l = lines; *l; l++) {
        if (g_str_has_prefix(*l, user) && (*l)[strlen(user)] == ':') {
            char *hex = g_strstrip(*l + strlen(user) + 1);
            gnutls_datum_t key = { (unsigned char *)hex, strlen(hex) };

            c->name = g_strdup_printf("psk:%s", user);
            return done(gnutls_psk_set_client_credentials(
                            c->psk_client, user, &key, GNUTLS_PSK_KEY_HEX),
                        "the key", path, errp);
        }
    }
    return ms_fail(errp, "%s has no user %s", path, user);
}

static bool load_psk(TlsCreds *c, const char *dir, const char *user,
                     GError **errp)
{
    g_autofree char *keys = g_build_filename(dir, "keys.psk", NULL);

    if (!c->server) {
        return done(gnutls_psk_allocate_client_credentials(&c->psk_client),
                    "allocating", dir, errp) &&
            client_key(c, keys, user, errp);
    }
    if (access(keys, R_OK)) {
        return ms_fail(errp, "TLS credentials: %s cannot be read", keys);
    }
    return done(gnutls_psk_allocate_server_credentials(&c->psk_server),
                "allocating", dir, errp) &&
        done(gnutls_psk_set_server_credentials_file(c->psk_server, keys),
             "keys.psk", dir, errp) &&
        done(gnutls_psk_set_server_known_dh_params(
                 c->psk_server, GNUTLS_SEC_PARAM_MEDIUM), "DH", dir, errp);
}

static TlsCreds *load(bool server, const char *kind, const char *dir,
                      const char *user, GError **errp)
{
    TlsCreds *c = g_new0(TlsCreds, 1);
    bool ok;

    c->server = server;
    c->psk = !strcmp(kind, "psk");
    if (!c->psk && strcmp(kind, "x509")) {
        ok = ms_fail(errp, "TLS credentials are x509 or psk, not %s", kind);
    } else {
        ok = c->psk ? load_psk(c, dir, user, errp) : load_x509(c, dir, errp);
    }
    if (!ok) {
        tls_creds_free(c);
        return NULL;
    }
    return c;
}

TlsCreds *tls_server_creds(const char *kind, const char *dir, GError **errp)
{
    return load(true, kind, dir, NULL, errp);
}

TlsCreds *tls_client_creds(const char *kind, const char *dir,
                           const char *user, GError **errp)
{
    return load(false, kind, dir, user, errp);
}

void tls_creds_free(TlsCreds *c)
{
    if (c) {
        if (c->x509) {
            gnutls_certificate_free_credentials(c->x509);
        }
        if (c->psk_server) {
            gnutls_psk_free_server_credentials(c->psk_server);
        }
        if (c->psk_client) {
            gnutls_psk_free_client_credentials(c->psk_client);
        }
        g_free(c->name);
        g_free(c);
    }
}

const char *tls_client_name(const TlsCreds *c)
{
    return c->name;
}

gnutls_session_t tls_session(const TlsCreds *c, const char *host,
                             GError **errp)
{
    gnutls_session_t s;
    int ret;

    if (!c->server && !c->psk && !host) {
        ms_fail(errp, "TLS: there is no host name to compare with the "
                "certificate of the other side");
        return NULL;
    }
    /* A peer that has gone must be an error, not a signal that ends all. */
    ret = gnutls_init(&s, (c->server ? GNUTLS_SERVER : GNUTLS_CLIENT) |
                      GNUTLS_NO_SIGNAL);
    if (ret < 0) {
        ms_fail(errp, "TLS: %s", gnutls_strerror(ret));
        return NULL;
    }
    gnutls_priority_set_direct(s, c->psk ? PRIORITY_PSK : PRIORITY_X509, NULL);
    if (c->psk) {
        gnutls_credentials_set(s, GNUTLS_CRD_PSK,
                               c->server ? (void *)c->psk_server
                                         : (void *)c->psk_client);
    } else {
        gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, c->x509);
        gnutls_session_set_verify_cert(s, c->server ? NULL : host, 0);
    }
    if (c->server && !c->psk) {
        gnutls_certificate_server_set_request(s, GNUTLS_CERT_REQUIRE);
    }
    return s;
}

void tls_refuse(gnutls_session_t s, int ret)
{
    if (ret != GNUTLS_E_UNEXPECTED_PACKET &&
        ret != GNUTLS_E_UNEXPECTED_PACKET_LENGTH &&
        ret != GNUTLS_E_UNSUPPORTED_VERSION_PACKET &&
        ret != GNUTLS_E_RECORD_OVERFLOW) {
        gnutls_alert_send_appropriate(s, ret);
    }
}

char *tls_error(gnutls_session_t s, int ret)
{
    gnutls_datum_t why;
    char *text;

    switch (ret) {
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
        if (gnutls_certificate_verification_status_print(
                gnutls_session_get_verify_cert_status(s), GNUTLS_CRT_X509,
                &why, 0) < 0) {
            break;
        }
        text = g_strchomp(g_strndup((char *)why.data, why.size));
        gnutls_free(why.data);
        return text;
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
        return g_strdup_printf("the other side refuses: %s",
                               gnutls_alert_get_name(gnutls_alert_get(s)));
    case GNUTLS_E_AGAIN:
        return g_strdup("the other side does not answer");
    }
    return g_strdup(gnutls_strerror(ret));
}

static char *name_of_certificate(gnutls_session_t s, GError **errp)
{
    unsigned count;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(s, &count);
    char *name = list && count ? name_in(&list[0]) : NULL;

    if (!name) {
        ms_fail(errp, "the peer has no certificate, or one without a name");
    }
    return name;
}

char *tls_check_peer(gnutls_session_t s, GError **errp)
{
    const char *user;

    if (gnutls_auth_get_type(s) != GNUTLS_CRD_PSK) {
        return name_of_certificate(s, errp);
    }
    user = gnutls_psk_server_get_username(s);
    /* For a client: the server has the key. */
    return g_strdup_printf("psk:%s", user ? user : "");
}
