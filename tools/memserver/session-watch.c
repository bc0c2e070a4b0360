/*
 * The thread that accepts the connections of a session and watches over it
 *
 * It owns the links: they are freed after their threads have ended.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "be.h"
#include "error.h"
#include "receive.h"
#include "session-watch.h"
#include "set.h"
#include "stream.h"

/*
 * Whoever connects has so many seconds for TLS and for the first bytes.  QEMU
 * sends them at once.
 */
#define FIRST_BYTES_SECONDS 10

/* How often the watcher looks whether bytes have come. */
#define LOOK_MS 500

/* After the last answer */
#define LINGER_SECONDS 10

/* Connections beyond those of the source that may be there at once. */
#define STRANGERS 8

/* Listening */

static int listen_port(Session *s, const Config *c, GError **errp)
{
    g_autofree char *host = address_host(c->data);

    if (!host) {
        ms_fail(errp, "[data] listen=%s: write tcp:HOST:0", c->data);
        return -1;
    }
    for (unsigned port = c->data_port_min; port <= c->data_port_max; port++) {
        g_autofree char *address =
            g_strdup_printf(strchr(host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u",
                            host, port);
        int fd = address_listen(address, 0, &s->address, NULL);

        if (fd >= 0) {
            return fd;
        }
    }
    ms_fail(errp, "no port from %u to %u is free", c->data_port_min,
            c->data_port_max);
    return -1;
}

static int listen_somewhere(Session *s, GError **errp)
{
    const Config *c = s->server->config;
    g_autofree char *address = NULL;

    if (c->data_socket_dir) {
        s->socket_path = g_strdup_printf("%s/%" PRIu64, c->data_socket_dir,
                                         s->id);
        address = g_strdup_printf("unix:%s", s->socket_path);
        return address_listen(address, c->socket_mode, &s->address, errp);
    }
    return c->data_port_min ? listen_port(s, c, errp)
                            : address_listen(c->data, 0, &s->address, errp);
}

/* Connections */

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

/* Frees links whose threads have ended; all: waits for them. */
static void reap(Session *s, bool all)
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

static void accept_one(Session *s)
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

/* Watching */

static void stop_listening(Session *s)
{
    if (s->listener >= 0) {
        close(s->listener);
        s->listener = -1;
        if (s->socket_path) {
            unlink(s->socket_path);
        }
    }
}

/* What is wrong, or NULL.  @idle: seconds without a byte. */
static const char *too_late(Session *s, uint64_t idle)
{
    const Config *c = s->server->config;
    const char *what = NULL;

    g_mutex_lock(&s->lock);
    if ((s->state == SESSION_ANNOUNCED || s->num_channels < s->own_channels) &&
        s->state < SESSION_STORING && idle >= c->connect_timeout) {
        what = "the source has not connected in time";
    } else if (s->set && !set_is_connected(s) &&
               s->state < SESSION_STORING && idle >= c->connect_timeout) {
        what = "the other servers of the set have not connected in time";
    } else if (s->state == SESSION_RECEIVING && idle >= c->stall_timeout) {
        what = "the source has sent nothing for too long";
    }
    g_mutex_unlock(&s->lock);
    return what;
}

static bool goes_on(Session *s, bool *full)
{
    bool on;

    g_mutex_lock(&s->lock);
    *full = s->num_channels == s->own_channels &&
        (s->set ? set_is_connected(s) && (s->main || s->set->part)
                : s->main != NULL);
    on = s->state != SESSION_FAILED &&
        !(s->state == SESSION_DONE && s->main_over);
    g_mutex_unlock(&s->lock);
    return on;
}

static void watch_until_end(Session *s)
{
    gint64 since = g_get_monotonic_time();
    uint64_t last = 0;
    bool full;

    while (goes_on(s, &full)) {
        struct pollfd fds[2] = {
            { .fd = s->wake, .events = POLLIN },
            { .fd = s->listener, .events = POLLIN },
        };
        uint64_t now = counted(&s->bytes);
        const char *late;

        if (full) {
            stop_listening(s);
        }
        poll(fds, s->listener >= 0 ? 2 : 1, LOOK_MS);
        if (s->listener >= 0 && (fds[1].revents & POLLIN)) {
            accept_one(s);
        }
        reap(s, false);
        if (s->set) {
            set_say_alive(s);
        }
        if (now != last) {
            last = now;
            since = g_get_monotonic_time();
        }
        late = too_late(s, (g_get_monotonic_time() - since) /
                        G_USEC_PER_SEC);
        if (late) {
            GError error = { MS_ERROR, 0, (char *)late };

            session_fail(s, &error);
        }
    }
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

/*
 * The source closes its connections when it has the last answer, and a server
 * of the set when it has committed.  If this server did it first, they might
 * take that for an error.
 */
static void linger(Session *s)
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

static void say_how_it_ended(Session *s)
{
    Counters *counters = &s->server->counters;

    if (s->state == SESSION_DONE) {
        count(&counters->checkpoints_done, 1);
        g_message("session %" PRIu64 ": checkpoint %s of %s is there", s->id,
                  s->name, s->vm);
    } else {
        count(&counters->checkpoints_failed, 1);
        g_message("session %" PRIu64 ": checkpoint %s of %s failed: %s",
                  s->id, s->name, s->vm, s->error);
    }
}

static void *watcher(void *opaque)
{
    Session *s = opaque;

    watch_until_end(s);
    stop_listening(s);
    if (s->set) {
        set_end(s);
    }
    linger(s);
    reap(s, true);
    session_let_go(s);
    say_how_it_ended(s);
    session_unref(s);
    return NULL;
}

bool session_watch(Session *s, GError **errp)
{
    s->listener = listen_somewhere(s, errp);
    if (s->listener < 0) {
        return false;
    }
    g_message("session %" PRIu64 ": %s announces checkpoint %s of %s, to come "
              "to %s", s->id, s->who, s->name, s->vm,
              s->address);
    if (s->set) {
        set_start(s);
    }
    s->watcher = g_thread_new("session", watcher, session_ref(s));
    return true;
}

void session_watch_join(Session *s)
{
    GThread *t;

    g_mutex_lock(&s->lock);
    t = g_steal_pointer(&s->watcher);
    g_mutex_unlock(&s->lock);
    if (t) {
        g_thread_join(t);
    }
}
