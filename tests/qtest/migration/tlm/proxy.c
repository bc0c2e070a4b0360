/*
 * QTest for TLM: a forwarder between source and destination
 *
 * One thread serves all connections.  It knows the multifd channels by the
 * id in their first packet.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include <poll.h>

#include "qemu/bswap.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "proxy.h"

#define MAX_CHANNELS 16
#define BUF_SIZE (64 * KiB)

/* Beside the numbers of multifd channels and TLM_PROXY_MAIN */
#define UNKNOWN -2

/* A multifd channel's first packet: MultiFDInit_t in migration/multifd.c */
#define MULTIFD_MAGIC 0x11223344U
#define MULTIFD_ID_OFFSET 24

typedef struct Pipe {
    int from, to;
    char *buf;
    size_t start, len;
    uint64_t bytes;
    bool eof;
} Pipe;

typedef struct Conn {
    int id;
    bool open;
    Pipe pipe[2];               /* towards the destination, and back */
} Conn;

struct TlmProxy {
    char *uri;
    int listener, wake[2];
    struct sockaddr_in target;
    GThread *thread;
    Conn conn[MAX_CHANNELS + 1];        /* thread */
    unsigned nr_conns;                  /* thread */
    GMutex lock;                        /* protects what follows */
    TlmProxyFlow flow;
    bool quit;
    int reset_id;                       /* UNKNOWN: none */
    uint64_t bytes[MAX_CHANNELS];       /* to the destination */
};

static void conn_close(Conn *c, bool reset)
{
    struct linger now = { .l_onoff = 1 };

    if (!c->open) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (reset) {
            setsockopt(c->pipe[i].from, SOL_SOCKET, SO_LINGER, &now,
                       sizeof(now));
        }
        close(c->pipe[i].from);
        g_free(c->pipe[i].buf);
    }
    c->open = false;
}

static void conn_accept(TlmProxy *p)
{
    Conn *c = &p->conn[p->nr_conns];
    int in = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(in, >=, 0);
    g_assert_cmpint(p->nr_conns, <, ARRAY_SIZE(p->conn));
    if (connect(out, (struct sockaddr *)&p->target, sizeof(p->target))) {
        /* The destination is gone */
        close(out);
        close(in);
        return;
    }
    g_assert_true(g_unix_set_fd_nonblocking(in, true, NULL));
    g_assert_true(g_unix_set_fd_nonblocking(out, true, NULL));
    *c = (Conn) {
        .id = UNKNOWN,
        .open = true,
        .pipe = { { .from = in, .to = out, .buf = g_malloc(BUF_SIZE) },
                  { .from = out, .to = in, .buf = g_malloc(BUF_SIZE) } },
    };
    p->nr_conns++;
}

/* False: not enough has come to tell; what has come stays in the socket */
static bool conn_identify(Conn *c)
{
    uint8_t head[MULTIFD_ID_OFFSET + 1];
    ssize_t len;

    if (c->id != UNKNOWN) {
        return true;
    }
    len = recv(c->pipe[0].from, head, sizeof(head), MSG_PEEK);
    if (len >= 4 && ldl_be_p(head) != MULTIFD_MAGIC) {
        c->id = TLM_PROXY_MAIN;
    } else if (len == sizeof(head)) {
        c->id = head[MULTIFD_ID_OFFSET];
        g_assert_cmpint(c->id, <, MAX_CHANNELS);
    } else {
        /* At the end of the stream, nothing is left to tell it by */
        return len == 0;
    }
    return true;
}

/* False: the connection is broken */
static bool pipe_forward(Pipe *pipe)
{
    ssize_t len;

    if (!pipe->len && !pipe->eof) {
        len = read(pipe->from, pipe->buf, BUF_SIZE);
        if (len < 0) {
            return errno == EAGAIN;
        }
        if (len == 0) {
            pipe->eof = true;
            shutdown(pipe->to, SHUT_WR);
        }
        pipe->start = 0;
        pipe->len = len;
    }
    if (pipe->len) {
        len = send(pipe->to, pipe->buf + pipe->start, pipe->len,
                   MSG_NOSIGNAL);
        if (len < 0) {
            return errno == EAGAIN;
        }
        pipe->start += len;
        pipe->len -= len;
        pipe->bytes += len;
    }
    return true;
}

static void conn_events(Conn *c, bool stalled, GArray *fds)
{
    for (unsigned i = 0; i < 2; i++) {
        Pipe *in = &c->pipe[i], *out = &c->pipe[!i];
        struct pollfd fd = { .fd = in->from };

        /* With no events, poll() tells of resets all the same */
        if (!stalled && !in->len && !in->eof) {
            fd.events |= POLLIN;
        }
        if (!stalled && out->len) {
            fd.events |= POLLOUT;
        }
        g_array_append_val(fds, fd);
    }
}

static void conn_run(Conn *c, const struct pollfd *fd, bool stalled)
{
    if ((fd[0].revents | fd[1].revents) & (POLLERR | POLLNVAL)) {
        conn_close(c, true);
        return;
    }
    if (stalled || !conn_identify(c)) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (!pipe_forward(&c->pipe[i])) {
            conn_close(c, true);
            return;
        }
    }
    if (c->pipe[0].eof && c->pipe[1].eof) {
        conn_close(c, false);
    }
}

static bool is_stalled(TlmProxyFlow flow, unsigned conn)
{
    return flow == TLM_PROXY_NONE || (flow == TLM_PROXY_ONLY_FIRST && conn);
}

/* Does what was asked for, and tells what was counted; false: at the end */
static bool take_orders(TlmProxy *p, TlmProxyFlow *flow)
{
    int reset_id;
    bool quit;

    g_mutex_lock(&p->lock);
    *flow = p->flow;
    quit = p->quit;
    reset_id = p->reset_id;
    p->reset_id = UNKNOWN;
    for (unsigned i = 0; i < p->nr_conns; i++) {
        if (p->conn[i].id >= 0) {
            p->bytes[p->conn[i].id] = p->conn[i].pipe[0].bytes;
        }
    }
    g_mutex_unlock(&p->lock);

    for (unsigned i = 0; i < p->nr_conns; i++) {
        if (quit) {
            conn_close(&p->conn[i], false);
        } else if (reset_id != UNKNOWN && p->conn[i].id == reset_id) {
            conn_close(&p->conn[i], true);
        }
    }
    return !quit;
}

static void *proxy_thread(void *opaque)
{
    TlmProxy *p = opaque;
    g_autoptr(GArray) fds = g_array_new(false, true, sizeof(struct pollfd));
    TlmProxyFlow flow;

    while (take_orders(p, &flow)) {
        struct pollfd fd[2] = {
            { .fd = p->listener, .events = POLLIN },
            { .fd = p->wake[0], .events = POLLIN },
        };
        unsigned nr_conns = p->nr_conns;
        unsigned at = ARRAY_SIZE(fd);
        char c;

        g_array_set_size(fds, 0);
        g_array_append_vals(fds, fd, ARRAY_SIZE(fd));
        for (unsigned i = 0; i < nr_conns; i++) {
            if (p->conn[i].open) {
                conn_events(&p->conn[i], is_stalled(flow, i), fds);
            }
        }
        if (poll((struct pollfd *)fds->data, fds->len, -1) < 0) {
            g_assert_cmpint(errno, ==, EINTR);
            continue;
        }
        for (unsigned i = 0; i < nr_conns; i++) {
            if (p->conn[i].open) {
                conn_run(&p->conn[i], &g_array_index(fds, struct pollfd, at),
                         is_stalled(flow, i));
                at += 2;
            }
        }
        if (g_array_index(fds, struct pollfd, 1).revents) {
            g_assert_cmpint(read(p->wake[0], &c, 1), ==, 1);
        }
        if (g_array_index(fds, struct pollfd, 0).revents) {
            conn_accept(p);
        }
    }
    return NULL;
}

struct sockaddr_in tlm_loopback(unsigned port)
{
    return (struct sockaddr_in) {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons(port),
    };
}

int tlm_listen_loopback(unsigned *port, int backlog)
{
    struct sockaddr_in addr = tlm_loopback(0);
    socklen_t len = sizeof(addr);
    /* Accepted sockets inherit it: little fits into a stalled connection */
    int fd, size = 64 * KiB;

    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size,
                               sizeof(size)), ==, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, len), ==, 0);
    g_assert_cmpint(listen(fd, backlog), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&addr, &len), ==, 0);
    *port = ntohs(addr.sin_port);
    return fd;
}

TlmProxy *tlm_proxy_new(const char *target)
{
    TlmProxy *p = g_new0(TlmProxy, 1);
    unsigned port;

    g_assert_true(g_str_has_prefix(target, "tcp:127.0.0.1:"));
    p->target = tlm_loopback(atoi(strrchr(target, ':') + 1));
    p->listener = tlm_listen_loopback(&port, 2 * MAX_CHANNELS);
    p->uri = g_strdup_printf("tcp:127.0.0.1:%u", port);
    p->flow = TLM_PROXY_ALL;
    p->reset_id = UNKNOWN;
    g_mutex_init(&p->lock);
    g_assert_true(g_unix_open_pipe(p->wake, FD_CLOEXEC, NULL));
    p->thread = g_thread_new("proxy", proxy_thread, p);
    return p;
}

const char *tlm_proxy_uri(const TlmProxy *p)
{
    return p->uri;
}

static void wake(TlmProxy *p)
{
    g_assert_cmpint(write(p->wake[1], "", 1), ==, 1);
}

void tlm_proxy_forward(TlmProxy *p, TlmProxyFlow flow)
{
    g_mutex_lock(&p->lock);
    p->flow = flow;
    g_mutex_unlock(&p->lock);
    wake(p);
}

void tlm_proxy_reset(TlmProxy *p, int id)
{
    g_mutex_lock(&p->lock);
    p->reset_id = id;
    g_mutex_unlock(&p->lock);
    wake(p);
}

uint64_t tlm_proxy_bytes(TlmProxy *p, unsigned id)
{
    uint64_t bytes;

    g_mutex_lock(&p->lock);
    bytes = p->bytes[id];
    g_mutex_unlock(&p->lock);
    return bytes;
}

void tlm_proxy_free(TlmProxy *p)
{
    g_mutex_lock(&p->lock);
    p->quit = true;
    g_mutex_unlock(&p->lock);
    wake(p);
    g_thread_join(p->thread);
    close(p->listener);
    close(p->wake[0]);
    close(p->wake[1]);
    g_mutex_clear(&p->lock);
    g_free(p->uri);
    g_free(p);
}
