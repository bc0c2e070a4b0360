/*
 * A TCP connection between two guests that finds each byte that is lost, comes
 * twice, or is not from this connection's past
 *
 *   echo server PORT         sends back what it gets
 *   echo client HOST PORT    keeps WINDOW records on the way
 *
 * Both ends know what comes next: record after record, each of its number and
 * words made from it. A record is a unit of work in the page of counter.h. The
 * client ends when the host asks it to; both then say what they have seen.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "counter.h"

#define WORDS 64                /* of a record, half a KiB */
#define WINDOW 64               /* less than what sockets buffer: no deadlock */

typedef struct Record {
    uint64_t words[WORDS];
} Record;

static volatile TlmCounter *counter;

_Noreturn static void fail(const char *what, uint64_t number)
{
    printf("TLM-GUEST-CORRUPT echo: %s at record %llu\n", what,
           (unsigned long long)number);
    exit(1);
}

static void make(Record *r, uint64_t number)
{
    int i;

    for (i = 0; i < WORDS; i++) {
        r->words[i] = (number + i) * UINT64_C(0x9e3779b97f4a7c15);
    }
    r->words[0] = number;
}

static void send_record(int fd, const Record *r, uint64_t number)
{
    size_t done = 0;
    ssize_t n;

    while (done < sizeof(*r)) {
        n = send(fd, (const char *)r + done, sizeof(*r) - done, MSG_NOSIGNAL);
        if (n <= 0) {
            fail("the connection broke", number);
        }
        done += n;
    }
}

/* False: the other end has closed it, between two records */
static int receive_record(int fd, Record *r, uint64_t number)
{
    Record wanted;
    size_t done = 0;
    ssize_t n;

    while (done < sizeof(*r)) {
        n = recv(fd, (char *)r + done, sizeof(*r) - done, 0);
        if (n == 0 && !done) {
            return 0;
        }
        if (n <= 0) {
            fail("the connection broke", number);
        }
        done += n;
    }
    make(&wanted, number);
    if (memcmp(r, &wanted, sizeof(wanted))) {
        fail("another record came", number);
    }
    tlm_counter_add(&counter->work, 1);
    return 1;
}

static int verified(uint64_t number)
{
    printf("ECHO VERIFIED records=%llu\n", (unsigned long long)number);
    return 0;
}

static int serve(uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0), client;
    uint64_t number;
    Record record;

    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
        listen(fd, 1)) {
        fail("no socket", 0);
    }
    counter->state = TLM_READY;
    client = accept(fd, NULL, NULL);
    for (number = 0; receive_record(client, &record, number); number++) {
        send_record(client, &record, number);
    }
    counter->stop = 1;          /* its end is the client's, not a failure */
    return verified(number);
}

static int ask(const char *host, uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(port) };
    uint64_t sent = 0, number = 0;
    Record record;
    int fd;

    inet_pton(AF_INET, host, &address.sin_addr);
    do {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (!connect(fd, (struct sockaddr *)&address, sizeof(address))) {
            break;
        }
        close(fd);
        usleep(100000);
    } while (1);
    while (!counter->stop || number < sent) {
        while (sent < number + WINDOW && !counter->stop) {
            make(&record, sent);
            send_record(fd, &record, sent++);
        }
        if (number < sent && !receive_record(fd, &record, number++)) {
            fail("the server has gone", number);
        }
        counter->state = TLM_READY;
    }
    close(fd);
    return verified(number);
}

int main(int argc, char **argv)
{
    counter = tlm_counter_open();
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (counter && argc == 3 && !strcmp(argv[1], "server")) {
        return serve(atoi(argv[2]));
    }
    if (counter && argc == 4 && !strcmp(argv[1], "client")) {
        return ask(argv[2], atoi(argv[3]));
    }
    fprintf(stderr, "usage: echo server PORT | client HOST PORT\n");
    return 2;
}
