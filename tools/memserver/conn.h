/*
 * A connection: a socket, with TLS or without
 *
 * Calls block.  One thread reads, one writes; conn_abort() is for any.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CONN_H
#define MEMSERVER_CONN_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "tls.h"

typedef struct Conn Conn;

/* Takes @fd over. */
Conn *conn_new(int fd);
void conn_free(Conn *c);

/*
 * As a client.  @tls: NULL: without.  @host: the name that the certificate of
 * the other side must have; NULL: that of @address.  NULL: an error.
 */
Conn *conn_open(const char *address, const TlsCreds *tls, const char *host,
                GError **errp);

/*
 * As the server, behind conn_new().  Until conn_patient() no read waits longer
 * than @seconds; 0: they wait as long as it takes.
 */
bool conn_accept_tls(Conn *c, const TlsCreds *creds, GError **errp);
void conn_impatient(Conn *c, unsigned seconds);
void conn_patient(Conn *c);

/*
 * Who is on the other side: "x509:DN", "psk:NAME", "uid:NUMBER" (Unix socket),
 * or "anyone" (TCP without TLS).
 */
const char *conn_peer(const Conn *c);

/* Up to @size bytes; 0: the end; -1: an error. */
gssize conn_read_some(Conn *c, void *to, size_t size, GError **errp);

/* All of it; an end before that is an error. */
bool conn_read(Conn *c, void *to, size_t size, GError **errp);

/* All of it.  Changes @iov. */
bool conn_readv(Conn *c, struct iovec *iov, unsigned count, GError **errp);

bool conn_write(Conn *c, const void *from, size_t size, GError **errp);

/* Says that nothing follows; the peer sees an end that is no error. */
void conn_end(Conn *c);

/* Without waiting: nothing more comes from the other side, or can be read. */
bool conn_is_over(const Conn *c);

/* Ends reads that wait, now and later; the connection can still write. */
void conn_abort(Conn *c);

#endif
