/*
 * A connection to whoever is restored
 *
 * With TLS, bytes are gathered into records of up to 16 KiB: one for each page
 * would cost much more.  A record that the socket does not take stays as it is
 * until it does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "error.h"
#include "target.h"

/* TLS has no larger ones. */
#define RECORD_MAX 16384

/* QEMU answers when its main loop is free. */
#define HANDSHAKE_SECONDS 20
#define WAIT_MS 50

struct Target {
    char *to, *host;
    const TlsCreds *creds;
    int fd;
    gnutls_session_t tls;
    bool heard;                         /* it has said something */
    size_t from, size;                  /* of the record that is to go */
    uint8_t record[RECORD_MAX];
};

Target *target_new(const TargetWish *wish)
{
    Target *t = g_new0(Target, 1);

    t->to = g_strdup(wish->to);
    t->creds = wish->tls;
    t->host = wish->tls_host ? g_strdup(wish->tls_host)
                             : address_host(wish->to);
    t->fd = -1;
    return t;
}

void target_free(Target *t)
{
    if (!t) {
        return;
    }
    if (t->tls) {
        gnutls_deinit(t->tls);
    }
    if (t->fd >= 0) {
        close(t->fd);
    }
    g_free(t->to);
    g_free(t->host);
    g_free(t);
}

int target_fd(const Target *t)
{
    return t->fd;
}

static bool handshake(Target *t, bool (*go_on)(void *opaque), void *opaque,
                      GError **errp)
{
    gint64 end = g_get_monotonic_time() + HANDSHAKE_SECONDS * G_USEC_PER_SEC;
    g_autofree char *why = NULL;
    int ret;

    gnutls_transport_set_int(t->tls, t->fd);
    while ((ret = gnutls_handshake(t->tls)) < 0 &&
           !gnutls_error_is_fatal(ret)) {
        struct pollfd p = { .fd = t->fd };

        p.events = gnutls_record_get_direction(t->tls) ? POLLOUT : POLLIN;
        if (ret == GNUTLS_E_AGAIN && !poll(&p, 1, WAIT_MS) &&
            g_get_monotonic_time() > end) {
            break;
        }
        if (!go_on(opaque)) {
            return ms_fail(errp, "ended as told to");
        }
    }
    if (ret >= 0) {
        return true;
    }
    why = tls_error(t->tls, ret);
    tls_refuse(t->tls, ret);
    return ms_fail(errp, "%s: TLS handshake: %s", t->to, why);
}

bool target_connect(Target *t, bool (*go_on)(void *opaque), void *opaque,
                    GError **errp)
{
    t->fd = address_connect(t->to, errp);
    if (t->fd < 0) {
        return false;
    }
    fcntl(t->fd, F_SETFL, fcntl(t->fd, F_GETFL) | O_NONBLOCK);
    if (t->creds) {
        t->tls = tls_session(t->creds, t->host, errp);
        return t->tls && handshake(t, go_on, opaque, errp);
    }
    return true;
}

/* What is wrong with the connection. */
static gssize broken(Target *t, const char *why, GError **errp)
{
    bool unknown = t->tls && !t->heard;

    ms_fail(errp, "QEMU has closed the connection%s%s%s", why ? ": " : "",
            why ? why : "", unknown ? "; it has said nothing, so perhaps it "
            "does not accept this server's TLS credentials: its messages tell "
            "why" : "");
    return -1;
}

static gssize unreadable(GError **errp)
{
    ms_fail(errp, "sending: the checkpoint's pages cannot be read; has its "
            "file been truncated?");
    return -1;
}

static gssize plain_write(Target *t, const struct iovec *iov, unsigned count,
                          GError **errp)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)iov,
                          .msg_iovlen = count };
    ssize_t n;

    do {
        n = sendmsg(t->fd, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        return n;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return 0;
    }
    if (errno == EFAULT) {
        return unreadable(errp);
    }
    ms_fail(errp, "sending: %s", g_strerror(errno));
    return -1;
}

/*
 * By a system call: where a mapped file has been truncated, that fails, but
 * memcpy() would end the process.
 */
static bool fill_record(Target *t, const struct iovec *iov, unsigned count,
                        GError **errp)
{
    struct iovec to = { .iov_base = t->record, .iov_len = RECORD_MAX };
    struct iovec from[RECORD_MAX / 512];
    size_t left = RECORD_MAX;
    unsigned n = 0;
    ssize_t got;

    while (n < count && n < G_N_ELEMENTS(from) && left) {
        from[n] = iov[n];
        from[n].iov_len = MIN(left, from[n].iov_len);
        left -= from[n++].iov_len;
    }
    got = process_vm_readv(getpid(), &to, 1, from, n, 0);
    if (got <= 0) {
        return errno == EFAULT ? unreadable(errp) > 0
            : ms_fail(errp, "process_vm_readv: %s", g_strerror(errno));
    }
    t->from = 0;
    t->size = got;
    return true;
}

static gssize tls_write(Target *t, const struct iovec *iov, unsigned count,
                        GError **errp)
{
    g_autofree char *why = NULL;
    gssize n;

    if (t->from == t->size && !fill_record(t, iov, count, errp)) {
        return -1;
    }
    do {
        n = gnutls_record_send(t->tls, t->record + t->from, t->size - t->from);
    } while (n == GNUTLS_E_INTERRUPTED);
    if (n >= 0) {
        t->from += n;
        return n;
    }
    if (n == GNUTLS_E_AGAIN) {
        return 0;
    }
    /* Perhaps it has said why. */
    if (target_read(t, t->record, sizeof(t->record), errp) >= 0) {
        why = tls_error(t->tls, n);
        broken(t, why, errp);
    }
    return -1;
}

gssize target_write(Target *t, const struct iovec *iov, unsigned count,
                    GError **errp)
{
    return t->tls ? tls_write(t, iov, count, errp)
                  : plain_write(t, iov, count, errp);
}

static gssize tls_read(Target *t, void *to, size_t size, GError **errp)
{
    g_autofree char *why = NULL;
    gssize n;

    do {
        n = gnutls_record_recv(t->tls, to, size);
    } while (n == GNUTLS_E_INTERRUPTED || n == GNUTLS_E_REHANDSHAKE);
    if (n == GNUTLS_E_AGAIN) {
        return 0;
    }
    if (n > 0) {
        t->heard = true;
        return n;
    }
    why = n == 0 || n == GNUTLS_E_PREMATURE_TERMINATION ||
        n == GNUTLS_E_PULL_ERROR ? NULL : tls_error(t->tls, n);
    return broken(t, why, errp);
}

gssize target_read(Target *t, void *to, size_t size, GError **errp)
{
    ssize_t n;

    if (t->tls) {
        return tls_read(t, to, size, errp);
    }
    do {
        n = recv(t->fd, to, size, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return 0;
    }
    return n > 0 ? n : broken(t, n ? g_strerror(errno) : NULL, errp);
}

int target_closed(Target *t)
{
    uint8_t byte;
    ssize_t n;

    if (t->tls) {
        /* QEMU ends a channel that it only reads from without a word. */
        n = gnutls_record_recv(t->tls, &byte, 1);
        return n == 0 || n == GNUTLS_E_PREMATURE_TERMINATION ? 1
            : n < 0 && !gnutls_error_is_fatal(n) ? 0 : -1;
    }
    n = recv(t->fd, &byte, 1, 0);
    return n == 0 ? 1
        : n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK ||
                    errno == EINTR) ? 0 : -1;
}

void target_end(Target *t)
{
    if (t->tls) {
        gnutls_bye(t->tls, GNUTLS_SHUT_WR);
    }
}
