/*
 * The control connection: sockets and threads
 *
 * A thread for each client: a client that waits for a checkpoint holds up
 * nobody else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "conn.h"
#include "control.h"
#include "error.h"
#include "piece.h"

#define LINE_MAX_SIZE (64 << 10)

/* For TLS only; a client may be silent afterwards. */
#define GREETING_SECONDS 10

struct Control {
    Server *server;
    GArray *listeners;                  /* int: file descriptors */
    GPtrArray *addresses;               /* as configured */
    GThread *thread;
    int wake;

    GMutex lock;                        /* the two below */
    GCond changed;
    GPtrArray *clients;                 /* Conn, each with a thread */
};

typedef struct Client {
    Control *control;
    Conn *conn;
    bool tls;
} Client;

/* Answers until the client goes, or has got a piece. */
static void serve(Server *server, Conn *conn, Claim *claim)
{
    ControlClient client = { .conn = conn, .claim = claim };
    g_autofree char *buffer = g_malloc(LINE_MAX_SIZE);
    size_t have = 0;

    for (;;) {
        char *end = memchr(buffer, '\n', have);
        gssize n;

        if (end) {
            g_autofree char *answer = control_line(server, conn_peer(conn),
                                                   buffer, end - buffer,
                                                   &client);
            g_autoptr(MemImage) piece = client.piece;

            have -= end + 1 - buffer;
            memmove(buffer, end + 1, have);
            if (!conn_write(conn, answer, strlen(answer), NULL)) {
                return;
            }
            if (piece) {
                piece_send(conn, piece, NULL);
                return;
            }
            continue;
        }
        if (have == LINE_MAX_SIZE) {
            static const char text[] =
                "{\"error\": {\"desc\": \"a line has more than 64 KiB\"}}\n";

            conn_write(conn, text, strlen(text), NULL);
            return;
        }
        n = conn_read_some(conn, buffer + have, LINE_MAX_SIZE - have, NULL);
        if (n <= 0) {
            return;
        }
        have += n;
    }
}

static void *client_thread(void *opaque)
{
    Client *c = opaque;
    Control *control = c->control;
    g_autoptr(GError) error = NULL;
    g_autoptr(Claim) claim = claim_new();
    bool ok = true;

    conn_impatient(c->conn, GREETING_SECONDS);
    if (c->tls) {
        ok = conn_accept_tls(c->conn, control->server->config->tls, &error);
    }
    conn_patient(c->conn);
    if (ok) {
        serve(control->server, c->conn, claim);
        claim_end(claim);
        store_give_up(control->server->store, claim);
        conn_end(c->conn);
    } else {
        g_message("a control connection is refused: %s", error->message);
        count(&control->server->counters.refused_connections, 1);
    }
    g_mutex_lock(&control->lock);
    g_ptr_array_remove_fast(control->clients, c->conn);
    conn_free(c->conn);
    g_cond_broadcast(&control->changed);
    g_mutex_unlock(&control->lock);
    g_free(c);
    return NULL;
}

static void accept_client(Control *control, int listener, const char *address)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    Client *c;

    if (fd < 0) {
        return;
    }
    g_mutex_lock(&control->lock);
    if (control->clients->len >= control->server->config->max_clients) {
        close(fd);
        count(&control->server->counters.refused_connections, 1);
    } else {
        c = g_new0(Client, 1);
        c->control = control;
        c->conn = conn_new(fd);
        c->tls = control->server->config->tls &&
            g_str_has_prefix(address, "tcp:");
        g_ptr_array_add(control->clients, c->conn);
        g_thread_unref(g_thread_new("client", client_thread, c));
    }
    g_mutex_unlock(&control->lock);
}

static void *listen_thread(void *opaque)
{
    Control *c = opaque;
    g_autofree struct pollfd *fds = g_new0(struct pollfd,
                                           c->listeners->len + 1);

    for (unsigned i = 0; i < c->listeners->len; i++) {
        fds[i].fd = g_array_index(c->listeners, int, i);
        fds[i].events = POLLIN;
    }
    fds[c->listeners->len].fd = c->wake;
    fds[c->listeners->len].events = POLLIN;
    while (poll(fds, c->listeners->len + 1, -1) >= 0 || errno == EINTR) {
        if (fds[c->listeners->len].revents) {
            return NULL;
        }
        for (unsigned i = 0; i < c->listeners->len; i++) {
            if (fds[i].revents & POLLIN) {
                accept_client(c, fds[i].fd,
                              g_ptr_array_index(c->addresses, i));
            }
        }
    }
    return NULL;
}

Control *control_start(Server *server, GError **errp)
{
    Control *c = g_new0(Control, 1);
    bool ok = true;

    c->server = server;
    c->listeners = g_array_new(false, false, sizeof(int));
    c->addresses = g_ptr_array_new_with_free_func(g_free);
    c->clients = g_ptr_array_new();
    c->wake = eventfd(0, EFD_CLOEXEC);
    g_mutex_init(&c->lock);
    g_cond_init(&c->changed);
    for (char **a = server->config->control; ok && *a; a++) {
        char *real = NULL;
        int fd = address_listen(*a, server->config->socket_mode, &real, errp);

        ok = fd >= 0;
        if (ok) {
            g_array_append_val(c->listeners, fd);
            g_ptr_array_add(c->addresses, real);
            g_message("listening on %s", real);
        }
    }
    if (ok) {
        c->thread = g_thread_new("control", listen_thread, c);
        return c;
    }
    control_stop(c);
    return NULL;
}

void control_stop(Control *c)
{
    uint64_t one = 1;

    if (c->thread) {
        ssize_t ignored = write(c->wake, &one, sizeof(one));

        (void)ignored;
        g_thread_join(c->thread);
    }
    for (unsigned i = 0; i < c->listeners->len; i++) {
        close(g_array_index(c->listeners, int, i));
    }
    g_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->clients->len; i++) {
        conn_abort(g_ptr_array_index(c->clients, i));
    }
    while (c->clients->len) {
        g_cond_wait(&c->changed, &c->lock);
    }
    g_mutex_unlock(&c->lock);
    close(c->wake);
    g_array_unref(c->listeners);
    g_ptr_array_unref(c->addresses);
    g_ptr_array_unref(c->clients);
    g_mutex_clear(&c->lock);
    g_cond_clear(&c->changed);
    g_free(c);
}
