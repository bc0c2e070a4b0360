/*
 * Addresses: tcp:HOST:PORT, unix:PATH
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "address.h"
#include "error.h"

#define BACKLOG 128
#define CONNECT_SECONDS 20

static bool unix_address(const char *address, struct sockaddr_un *to,
                         GError **errp)
{
    const char *path = address + strlen("unix:");

    memset(to, 0, sizeof(*to));
    to->sun_family = AF_UNIX;
    if (!*path || strlen(path) >= sizeof(to->sun_path)) {
        return ms_fail(errp, "%s: the path is empty, or longer than %zu bytes",
                       address, sizeof(to->sun_path) - 1);
    }
    g_strlcpy(to->sun_path, path, sizeof(to->sun_path));
    return true;
}

static bool split(const char *address, char **host, char **port)
{
    const char *rest = address + strlen("tcp:");
    const char *colon = strrchr(rest, ':');

    if (!g_str_has_prefix(address, "tcp:") || !colon || colon == rest) {
        return false;
    }
    *port = g_strdup(colon + 1);
    /* [::1]:4444 */
    *host = rest[0] == '[' && colon[-1] == ']'
        ? g_strndup(rest + 1, colon - rest - 2) : g_strndup(rest, colon - rest);
    return true;
}

char *address_host(const char *address)
{
    g_autofree char *port = NULL;
    char *host;

    return split(address, &host, &port) ? host : NULL;
}

static struct addrinfo *resolve(const char *address, GError **errp)
{
    g_autofree char *host = NULL, *port = NULL;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
    int ret;

    if (!split(address, &host, &port)) {
        ms_fail(errp, "'%s' is no address: write tcp:HOST:PORT or unix:PATH",
                address);
        return NULL;
    }
    ret = getaddrinfo(host, port, &hints, &list);
    if (ret) {
        ms_fail(errp, "%s: %s", address, gai_strerror(ret));
        return NULL;
    }
    return list;
}

static int failed(int fd, const char *address, const char *what,
                  GError **errp)
{
    ms_fail(errp, "%s: cannot %s: %s", address, what, g_strerror(errno));
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

static int listen_unix(const char *address, unsigned mode, char **real,
                       GError **errp)
{
    struct sockaddr_un sun;
    int fd;

    if (!unix_address(address, &sun, errp)) {
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(sun.sun_path);
    if (fd < 0 || bind(fd, (void *)&sun, sizeof(sun)) ||
        chmod(sun.sun_path, mode) || listen(fd, BACKLOG)) {
        return failed(fd, address, "listen", errp);
    }
    *real = g_strdup(address);
    return fd;
}

static char *real_address(int fd, const char *address)
{
    g_autofree char *host = address_host(address);
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } name = { 0 };
    socklen_t size = sizeof(name);
    uint16_t port = 0;

    if (!getsockname(fd, &name.any, &size)) {
        port = name.any.sa_family == AF_INET6 ? name.in6.sin6_port
                                              : name.in.sin_port;
    }
    return g_strdup_printf(strchr(host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u",
                           host, ntohs(port));
}

int address_listen(const char *address, unsigned mode, char **real,
                   GError **errp)
{
    struct addrinfo *list;
    int fd, one = 1;
    bool ok;

    if (g_str_has_prefix(address, "unix:")) {
        return listen_unix(address, mode, real, errp);
    }
    list = resolve(address, errp);
    if (!list) {
        return -1;
    }
    fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ok = fd >= 0 &&
        !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) &&
        !bind(fd, list->ai_addr, list->ai_addrlen) && !listen(fd, BACKLOG);
    freeaddrinfo(list);
    if (!ok) {
        return failed(fd, address, "listen", errp);
    }
    *real = real_address(fd, address);
    return fd;
}

/*
 * A host that does not answer at all would take minutes.  Linux limits
 * connect() as it does send().
 */
static bool connect_soon(int fd, const void *to, socklen_t size)
{
    struct timeval limit = { .tv_sec = CONNECT_SECONDS }, none = { 0 };

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, to, size)) {
        errno = errno == EINPROGRESS || errno == EAGAIN ? ETIMEDOUT : errno;
        return false;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
    return true;
}

int address_connect(const char *address, GError **errp)
{
    struct sockaddr_un sun;
    struct addrinfo *list;
    int fd = -1;

    if (g_str_has_prefix(address, "unix:")) {
        if (!unix_address(address, &sun, errp)) {
            return -1;
        }
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || !connect_soon(fd, &sun, sizeof(sun))) {
            return failed(fd, address, "connect", errp);
        }
        return fd;
    }
    list = resolve(address, errp);
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && !connect_soon(fd, a->ai_addr, a->ai_addrlen)) {
            int saved = errno;

            close(fd);
            fd = -1;
            errno = saved;
        }
    }
    if (!list) {
        return -1;
    }
    freeaddrinfo(list);
    return fd >= 0 ? fd : failed(fd, address, "connect", errp);
}

bool address_is_local(const char *address)
{
    struct addrinfo *list;
    bool local = true;

    if (g_str_has_prefix(address, "unix:")) {
        return true;
    }
    list = resolve(address, NULL);
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        struct sockaddr_in *in = (void *)a->ai_addr;
        struct sockaddr_in6 *in6 = (void *)a->ai_addr;

        local = local && (a->ai_family == AF_INET
                          ? ntohl(in->sin_addr.s_addr) >> 24 == 127
                          : IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr));
    }
    if (list) {
        freeaddrinfo(list);
    }
    return list && local;
}
