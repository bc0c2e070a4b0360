/*
 * The links of a session: who may connect, and what it is that has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <sys/socket.h>

#include "be.h"
#include "error.h"
#include "receive.h"
#include "session-links.h"
#include "set.h"
#include "stream.h"

/*
 * Whoever connects has so many seconds for TLS and for the first bytes.  QEMU
 * sends them at once.
 */
#define FIRST_BYTES_SECONDS 10

/* After the last answer */
#define LINGER_SECONDS 10

/* Connections beyond those of the source that may be there at once. */
#define STRANGERS 8

/*
 * Both kinds of peer must have said who they are; the same kind of name must
 * be the same name.  (A Unix socket's user id is that of QEMU.)
 */
static bool same_peer(const char *announced, const char *connected)
{
    bool kind = !strncmp(announced, connected, strcspn(announced, ":") + 1);

    return strchr(announced, ':') == NULL || !kind ||
        g_str_has_prefix(connected, "uid:") || !strcmp(announced, connected);
}

/* The one who has announced it, or one whom that one has named. */
static bool may_send(const Session *s, const char *connected)
{
    return same_peer(s->who, connected) ||
        (s->senders && g_strv_contains((const char *const *)s->senders,
                                       connected));
}

static bool greet(Session *s, Link *l, uint8_t first[4], GError **errp)
{
    conn_impatient(l->conn, FIRST_BYTES_SECONDS);
    if (s->server->config->tls && !s->server->config->data_socket_dir) {
        if (!conn_accept_tls(l->conn, s->server->config->tls, errp)) {
            return false;
        }
    }
    if (!may_send(s, conn_peer(l->conn))) {
        return ms_fail(errp, "%s connects to a session of %s",
                       conn_peer(l->conn), s->who);
    }
    return conn_read(l->conn, first, 4, errp);
}

static void *link_thread(void *opaque)
{
    Link *l = opaque;
    Session *s = l->session;
    g_autoptr(GError) error = NULL;
    uint8_t first[4];
    bool ok, known = false;

    ok = greet(s, l, first, &error);
    if (ok && get_be32(first) == STREAM_MAGIC) {
        known = session_claim_main(s, l, &error);
        conn_patient(l->conn);
        ok = known && receive_main(s, l->conn, first, sizeof(first), &error);
    } else if (ok && get_be32(first) == PEER_MAGIC) {
        ok = receive_peer(s, l, first, sizeof(first), &error);
        known = l->is_peer;
    } else if (ok) {
        ok = receive_channel(s, l, first, sizeof(first), &error);
        known = l->introduced;
    }
    if (!ok && known) {
        session_fail(s, error);
    } else if (!ok) {
        g_message("session %" PRIu64 ": a connection is refused: %s", s->id,
                  error->message);
        count(&s->server->counters.refused_connections, 1);
    }
    g_mutex_lock(&s->lock);
    l->over = true;
    s->channels_at_work -= l->is_channel;
    s->main_over = s->main_over || s->main == l;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    return NULL;
}

static void link_free(Link *l)
{
    g_thread_join(l->thread);
    conn_free(l->conn);
    g_free(l);
}

/* Called with the lock; one whose thread has ended, or NULL; all: any one. */
static Link *take_link(Session *s, bool all)
{
    /* The main stream's thread writes to the other servers of a set. */
    if (all && s->main && g_ptr_array_remove(s->links, s->main)) {
        return s->main;
    }
    for (unsigned i = 0; i < s->links->len; i++) {
        Link *l = g_ptr_array_index(s->links, i);

        if (all || (l->over && l != s->main && !l->is_peer)) {
            g_ptr_array_remove_index(s->links, i);
            return l;
        }
    }
    return NULL;
}

void session_reap(Session *s, bool all)
{
    for (;;) {
        Link *l;

        g_mutex_lock(&s->lock);
        l = take_link(s, all);
        g_mutex_unlock(&s->lock);
        if (!l) {
            return;
        }
        link_free(l);
    }
}

void session_accept(Session *s)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    Link *l;

    if (fd < 0) {
        return;
    }
    l = g_new0(Link, 1);
    l->session = s;
    l->conn = conn_new(fd);
    g_mutex_lock(&s->lock);
    if (s->state == SESSION_FAILED ||
        s->links->len >= s->channels + 1 + PARTS_MAX + STRANGERS) {
        g_mutex_unlock(&s->lock);
        conn_free(l->conn);
        g_free(l);
        return;
    }
    g_ptr_array_add(s->links, l);
    l->thread = g_thread_new("link", link_thread, l);
    g_mutex_unlock(&s->lock);
}

/* Called with the lock: links that are to end by themselves. */
static bool others_at_work(const Session *s)
{
    for (unsigned i = 0; i < s->links->len; i++) {
        const Link *l = g_ptr_array_index(s->links, i);

        if (!l->over && (l->is_channel || l->is_peer)) {
            return true;
        }
    }
    return false;
}

void session_linger(Session *s)
{
    gint64 end = g_get_monotonic_time() + LINGER_SECONDS * G_USEC_PER_SEC;

    g_mutex_lock(&s->lock);
    while (s->state == SESSION_DONE && others_at_work(s) &&
           g_cond_wait_until(&s->changed, &s->lock, end)) {
        ;
    }
    for (unsigned i = 0; i < s->links->len; i++) {
        conn_abort(((Link *)g_ptr_array_index(s->links, i))->conn);
    }
    g_mutex_unlock(&s->lock);
}
