/*
 * A connection: a socket, with TLS or without
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "address.h"
#include "conn.h"
#include "error.h"

struct Conn {
    int fd;
    gnutls_session_t tls;
    char *peer;
};

/*
 * A host that is gone says nothing.  After so many seconds of silence, and as
 * many probes so far apart without an answer, the connection is over: 20 s,
 * which is a little more than clients wait for servers.
 */
#define PROBE_AFTER 10
#define PROBE_EVERY 5
#define PROBES 2

/* A Unix socket has none of these options, and needs none. */
static void set_options(int fd)
{
    const struct {
        int level, option, value;
    } options[] = {
        /* Answers are small and awaited. */
        { IPPROTO_TCP, TCP_NODELAY, 1 },
        { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, PROBE_AFTER },
        { IPPROTO_TCP, TCP_KEEPINTVL, PROBE_EVERY },
        { IPPROTO_TCP, TCP_KEEPCNT, PROBES },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        setsockopt(fd, options[i].level, options[i].option, &options[i].value,
                   sizeof(int));
    }
}

Conn *conn_new(int fd)
{
    Conn *c = g_new0(Conn, 1);
    struct ucred cred;
    socklen_t size = sizeof(cred);

    c->fd = fd;
    set_options(fd);
    if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) &&
        cred.uid != (uid_t)-1) {
        c->peer = g_strdup_printf("uid:%u", cred.uid);
    } else {
        c->peer = g_strdup("anyone");
    }
    return c;
}

void conn_free(Conn *c)
{
    if (c) {
        if (c->tls) {
            gnutls_deinit(c->tls);
        }
        close(c->fd);
        g_free(c->peer);
        g_free(c);
    }
}

static void set_timeout(Conn *c, int option, unsigned seconds)
{
    struct timeval tv = { .tv_sec = seconds };

    setsockopt(c->fd, SOL_SOCKET, option, &tv, sizeof(tv));
}

/* A server that has accepted the connection, and then says nothing. */
#define HANDSHAKE_SECONDS 10

void conn_impatient(Conn *c, unsigned seconds)
{
    set_timeout(c, SO_RCVTIMEO, seconds);
    set_timeout(c, SO_SNDTIMEO, seconds);
}

/* Writes are small: a peer that does not take them has gone. */
#define WRITE_SECONDS 30

void conn_patient(Conn *c)
{
    set_timeout(c, SO_RCVTIMEO, 0);
    set_timeout(c, SO_SNDTIMEO, WRITE_SECONDS);
}

static bool handshake(Conn *c, GError **errp)
{
    int ret;

    gnutls_transport_set_int(c->tls, c->fd);
    do {
        ret = gnutls_handshake(c->tls);
    } while (ret < 0 && ret != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(ret));
    if (ret < 0) {
        g_autofree char *why = tls_error(c->tls, ret);

        tls_refuse(c->tls, ret);
        return ms_fail(errp, "TLS handshake: %s", why);
    }
    g_free(c->peer);
    c->peer = tls_check_peer(c->tls, errp);
    return c->peer;
}

bool conn_accept_tls(Conn *c, const TlsCreds *creds, GError **errp)
{
    c->tls = tls_session(creds, NULL, errp);
    return c->tls && handshake(c, errp);
}

Conn *conn_open(const char *address, const TlsCreds *tls, const char *host,
                GError **errp)
{
    g_autofree char *own = host ? NULL : address_host(address);
    int fd = address_connect(address, errp);
    Conn *c = fd >= 0 ? conn_new(fd) : NULL;

    if (c && tls) {
        conn_impatient(c, HANDSHAKE_SECONDS);
        c->tls = tls_session(tls, host ? host : own, errp);
        if (!c->tls || !handshake(c, errp)) {
            g_prefix_error(errp, "%s: ", address);
            conn_free(c);
            return NULL;
        }
        conn_impatient(c, 0);
    }
    return c;
}

const char *conn_peer(const Conn *c)
{
    return c->peer;
}

static gssize tls_read(Conn *c, void *to, size_t size, GError **errp)
{
    gssize n;

    do {
        n = gnutls_record_recv(c->tls, to, size);
    } while (n == GNUTLS_E_INTERRUPTED || n == GNUTLS_E_REHANDSHAKE);
    if (n == GNUTLS_E_PREMATURE_TERMINATION) {
        return 0;
    }
    if (n < 0) {
        g_autofree char *why = tls_error(c->tls, n);

        ms_fail(errp, "cannot read: %s", why);
        return -1;
    }
    return n;
}

static gssize readv_some(Conn *c, const struct iovec *iov, unsigned count,
                         GError **errp)
{
    gssize n;

    if (c->tls) {
        return tls_read(c, iov[0].iov_base, iov[0].iov_len, errp);
    }
    do {
        n = readv(c->fd, iov, MIN(count, IOV_MAX));
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        ms_fail(errp, "cannot read: %s", errno == EAGAIN
                ? "the peer says nothing" : g_strerror(errno));
        return -1;
    }
    return n;
}

gssize conn_read_some(Conn *c, void *to, size_t size, GError **errp)
{
    struct iovec iov = { .iov_base = to, .iov_len = size };

    return readv_some(c, &iov, 1, errp);
}

bool conn_readv(Conn *c, struct iovec *iov, unsigned count, GError **errp)
{
    while (count) {
        gssize n = readv_some(c, iov, count, errp);

        if (n < 0) {
            return false;
        }
        if (n == 0) {
            return ms_fail(errp, "the connection has ended early");
        }
        while (count && n >= iov->iov_len) {
            n -= iov->iov_len;
            iov++;
            count--;
        }
        if (count) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= n;
        }
    }
    return true;
}

bool conn_read(Conn *c, void *to, size_t size, GError **errp)
{
    struct iovec iov = { .iov_base = to, .iov_len = size };

    return conn_readv(c, &iov, 1, errp);
}

bool conn_write(Conn *c, const void *from, size_t size, GError **errp)
{
    const char *p = from;

    while (size) {
        gssize n;

        if (c->tls) {
            n = gnutls_record_send(c->tls, p, size);
            if (n == GNUTLS_E_INTERRUPTED) {
                continue;
            }
            if (n < 0) {
                return ms_fail(errp, "cannot write: %s", gnutls_strerror(n));
            }
        } else {
            n = send(c->fd, p, size, MSG_NOSIGNAL);
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n < 0) {
                return ms_fail(errp, "cannot write: %s", g_strerror(errno));
            }
        }
        p += n;
        size -= n;
    }
    return true;
}

void conn_end(Conn *c)
{
    if (c->tls) {
        gnutls_bye(c->tls, GNUTLS_SHUT_WR);
    }
    shutdown(c->fd, SHUT_WR);
}

bool conn_is_over(const Conn *c)
{
    struct pollfd fd = { .fd = c->fd, .events = POLLRDHUP };

    return poll(&fd, 1, 0) > 0;
}

void conn_abort(Conn *c)
{
    shutdown(c->fd, SHUT_RD);
}
