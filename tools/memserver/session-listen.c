/*
 * Where a session listens: a port, or a socket in a directory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <unistd.h>

#include "address.h"
#include "error.h"
#include "session-internal.h"
#include "session-listen.h"

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

bool session_listen(Session *s, GError **errp)
{
    s->listener = listen_somewhere(s, errp);
    return s->listener >= 0;
}

void session_stop_listening(Session *s)
{
    if (s->listener >= 0) {
        close(s->listener);
        s->listener = -1;
        if (s->socket_path) {
            unlink(s->socket_path);
        }
    }
}
