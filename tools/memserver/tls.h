/*
 * TLS with the credentials that QEMU uses (tls-creds-x509, tls-creds-psk)
 *
 * A directory has, for the server,
 *   x509: ca-cert.pem, server-cert.pem, server-key.pem, and ca-crl.pem if
 *         there is one; the client needs a certificate of the same authority
 *   psk:  keys.psk
 * and for the client client-cert.pem, client-key.pem instead of the server's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_TLS_H
#define MEMSERVER_TLS_H

#include <glib.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>

typedef struct TlsCreds TlsCreds;

/* @kind: "x509", "psk".  @user: the client's name, for psk. */
TlsCreds *tls_server_creds(const char *kind, const char *dir, GError **errp);
TlsCreds *tls_client_creds(const char *kind, const char *dir,
                           const char *user, GError **errp);
void tls_creds_free(TlsCreds *c);

/* Of a client: who it is to servers, as tls_check_peer() says there. */
const char *tls_client_name(const TlsCreds *c);

/*
 * A session without a socket, before the handshake.  @host: the name that the
 * server's certificate must have, for a client with x509.
 */
gnutls_session_t tls_session(const TlsCreds *c, const char *host,
                             GError **errp);

/*
 * After a handshake that ended with the error @ret: what is wrong with the
 * other side is for it to know.  Nothing is sent to one that does not speak
 * TLS, which would take it for an answer.
 */
void tls_refuse(gnutls_session_t s, int ret);

/* What @ret, an error of the handshake or afterwards, means.  Free it. */
char *tls_error(gnutls_session_t s, int ret);

/* After the handshake: who it is, or NULL. */
char *tls_check_peer(gnutls_session_t s, GError **errp);

#endif
