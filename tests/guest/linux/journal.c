/*
 * Clients of a database that write records, one after the other
 *
 *   tlm-journal redis|postgresql N
 *
 * Each of N clients writes its records 1, 2, 3..., and the next one only when
 * the database has acknowledged the last.  How far it is, it notes in the page
 * of counter.h: before it asks, and when it has been answered.  So whoever
 * finds the records of a client in the database knows what must be there: what
 * was acknowledged, and at most the one that was asked for, in order.
 *
 * Ends only with an error, which it says.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "counter.h"

#define REDIS_PORT 6379
#define PG_SOCKET "/tmp/.s.PGSQL.5432"
#define PG_PROTOCOL (3 << 16)
#define MAX_REPLY 4096
#define FILLER 400              /* bytes of a record, beside its number */

typedef struct Client {
    int fd;
    unsigned id;
    pthread_t thread;
} Client;

typedef struct Database {
    const char *name;
    void (*connect)(Client *client);
    void (*write)(Client *client, uint64_t record);
} Database;

static volatile TlmCounter *counter;
static const Database *database;
static char filler[FILLER + 1];

_Noreturn static void die(const Client *client, const char *what)
{
    fprintf(stderr, "tlm-journal: client %u: %s: %s\n", client->id, what,
            strerror(errno));
    exit(1);
}

static void send_all(const Client *client, const void *data, size_t size)
{
    const char *p = data;
    ssize_t done;

    for (; size; p += done, size -= done) {
        done = write(client->fd, p, size);
        if (done <= 0) {
            die(client, "cannot write");
        }
    }
}

static void receive_all(const Client *client, void *data, size_t size)
{
    char *p = data;
    ssize_t done;

    for (; size; p += done, size -= done) {
        done = read(client->fd, p, size);
        if (done <= 0) {
            die(client, "cannot read");
        }
    }
}

static void connect_to(Client *client, const struct sockaddr *address,
                       socklen_t size)
{
    client->fd = socket(address->sa_family, SOCK_STREAM, 0);
    if (client->fd < 0 || connect(client->fd, address, size)) {
        die(client, "cannot connect");
    }
}

/* Redis: a list for each client, to which it adds */

static void redis_connect(Client *client)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(REDIS_PORT),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int on = 1;

    connect_to(client, (const struct sockaddr *)&address, sizeof(address));
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void redis_write(Client *client, uint64_t record)
{
    char key[32], value[FILLER + 32], command[FILLER + 256];
    char reply[64], want[64];
    int size;

    snprintf(key, sizeof(key), "journal:%u", client->id);
    snprintf(value, sizeof(value), "%" PRIu64 " %s", record, filler);
    size = snprintf(command, sizeof(command), "*3\r\n$5\r\nRPUSH\r\n"
                    "$%zu\r\n%s\r\n$%zu\r\n%s\r\n",
                    strlen(key), key, strlen(value), value);
    send_all(client, command, size);
    /* It answers with the length of the list */
    size = snprintf(want, sizeof(want), ":%" PRIu64 "\r\n", record);
    receive_all(client, reply, size);
    if (memcmp(reply, want, size)) {
        fprintf(stderr, "%.*s", size, reply);
        die(client, "another answer than expected");
    }
}

/* PostgreSQL: a row for each record, each in a transaction of its own */

static void pg_await_ready(const Client *client)
{
    char kind, body[MAX_REPLY];
    uint32_t size;

    do {
        receive_all(client, &kind, sizeof(kind));
        receive_all(client, &size, sizeof(size));
        size = ntohl(size) - sizeof(size);
        if (size > sizeof(body)) {
            die(client, "too long an answer");
        }
        receive_all(client, body, size);
        if (kind == 'E') {
            fwrite(body, 1, size, stderr);
            die(client, "an error");
        }
    } while (kind != 'Z');
}

static void pg_connect(Client *client)
{
    static const char options[] = "user\0postgres\0database\0postgres\0";
    const struct sockaddr_un address = {
        .sun_family = AF_UNIX,
        .sun_path = PG_SOCKET,
    };
    uint32_t head[2] = {
        htonl(sizeof(head) + sizeof(options)), htonl(PG_PROTOCOL)
    };

    connect_to(client, (const struct sockaddr *)&address, sizeof(address));
    send_all(client, head, sizeof(head));
    send_all(client, options, sizeof(options));
    pg_await_ready(client);
}

static void pg_write(Client *client, uint64_t record)
{
    char query[FILLER + 128], head[1 + sizeof(uint32_t)] = "Q";
    uint32_t size = 1 + snprintf(query, sizeof(query), "INSERT INTO journal "
                                 "VALUES (%u, %" PRIu64 ", '%s')",
                                 client->id, record, filler);
    uint32_t length = htonl(sizeof(length) + size);

    memcpy(head + 1, &length, sizeof(length));
    send_all(client, head, sizeof(head));
    send_all(client, query, size);
    pg_await_ready(client);
}

static const Database databases[] = {
    { "redis", redis_connect, redis_write },
    { "postgresql", pg_connect, pg_write },
};

static void *client_main(void *opaque)
{
    Client *client = opaque;
    volatile TlmClient *noted = &counter->client[client->id];
    uint64_t record;

    for (record = 1; ; record++) {
        noted->asked = record;
        database->write(client, record);
        noted->acknowledged = record;
        tlm_counter_add(&counter->work, 1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static Client clients[TLM_MAX_CLIENTS];
    unsigned i, num = argc == 3 ? atoi(argv[2]) : 0;

    for (i = 0; num && i < sizeof(databases) / sizeof(databases[0]); i++) {
        if (!strcmp(argv[1], databases[i].name)) {
            database = &databases[i];
        }
    }
    if (!database || num > TLM_MAX_CLIENTS) {
        fprintf(stderr, "usage: tlm-journal redis|postgresql N\n");
        return 1;
    }
    memset(filler, '.', FILLER);
    counter = tlm_counter_open();
    if (!counter) {
        fprintf(stderr, "tlm-journal: no counter\n");
        return 1;
    }
    for (i = 0; i < num; i++) {
        clients[i].id = i;
        database->connect(&clients[i]);
    }
    for (i = 0; i < num; i++) {
        if (pthread_create(&clients[i].thread, NULL, client_main,
                           &clients[i])) {
            die(&clients[i], "cannot start a thread");
        }
    }
    for (i = 0; i < num; i++) {
        pthread_join(clients[i].thread, NULL);
    }
    return 0;
}
