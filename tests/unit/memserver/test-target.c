/*
 * The connection to whoever is restored: what is sent comes, whole and in
 * order, with TLS as without, however little the socket takes at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "conn.h"
#include "credentials.h"
#include "out.h"

#define PAGE 4096
#define PAGES 2000
#define SIZE (PAGES * PAGE)
#define SMALL_BUFFER 8192
#define ANSWER "so many bytes: "

typedef struct Fixture {
    char *dir, *address;
    TlsCreds *server, *client;          /* NULL: without TLS */
    int listener, fd;                   /* of the other side */
    Conn *conn;
    GByteArray *got;
    Target *target;
    Out *out;
} Fixture;

static void setup(Fixture *f, const void *data)
{
    int size = SMALL_BUFFER;

    f->dir = g_dir_make_tmp("tlm-target-XXXXXX", NULL);
    if (data) {
        credentials_psk(f->dir, "qemu", "ab");
        f->server = tls_server_creds("psk", f->dir, NULL);
        f->client = tls_client_creds("psk", f->dir, "qemu", NULL);
    }
    f->listener = address_listen("tcp:127.0.0.1:0", 0, &f->address, NULL);
    setsockopt(f->listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    f->target = target_new(&(TargetWish) {
        .to = f->address, .tls = f->client,
    });
    f->out = out_new();
    f->got = g_byte_array_new();
}

static void teardown(Fixture *f, const void *data)
{
    g_autofree char *command = g_strdup_printf("rm -rf '%s'", f->dir);

    g_assert_cmpint(system(command), ==, 0);
    out_free(f->out);
    target_free(f->target);
    tls_creds_free(f->server);
    tls_creds_free(f->client);
    g_byte_array_unref(f->got);
    close(f->listener);
    g_free(f->address);
    g_free(f->dir);
}

static void greet(Fixture *f)
{
    f->fd = accept(f->listener, NULL, NULL);
    f->conn = conn_new(f->fd);
    if (f->server) {
        g_assert_true(conn_accept_tls(f->conn, f->server, NULL));
    }
}

/* Takes all, and says again and again how much there is, in small records. */
static gpointer take(gpointer opaque)
{
    Fixture *f = opaque;
    uint8_t buffer[PAGE];
    gssize n;

    greet(f);
    while (f->got->len < SIZE &&
           (n = conn_read_some(f->conn, buffer, sizeof(buffer), NULL)) > 0) {
        g_byte_array_append(f->got, buffer, n);
    }
    for (unsigned i = 0; i < 1000; i++) {
        g_assert_true(conn_write(f->conn, ANSWER, strlen(ANSWER), NULL));
    }
    conn_free(f->conn);
    return NULL;
}

static bool go_on(void *counter)
{
    if (counter) {
        ++*(unsigned *)counter;
    }
    return true;
}

static void await(Fixture *f, int events)
{
    struct pollfd p = { .fd = target_fd(f->target), .events = events };

    g_assert_cmpint(poll(&p, 1, 60000), ==, 1);
}

static void fill(uint8_t *pages)
{
    for (unsigned i = 0; i < SIZE; i++) {
        pages[i] = (i >> 12) * 7 + i * 13;
    }
}

/* Small things and pages, in turn: as much as SIZE, which is compared. */
static void put(Fixture *f, const uint8_t *pages)
{
    for (unsigned i = 0; i < PAGES; i++) {
        out_copy(f->out, pages + i * PAGE, i % 30);
        out_refer(f->out, pages + i * PAGE + i % 30, PAGE - i % 30);
    }
}

static void read_answers(Fixture *f)
{
    static char answers[1000 * sizeof(ANSWER)];
    size_t have = 0, all = 1000 * strlen(ANSWER);

    while (have < all) {
        /* So one record of TLS makes several reads. */
        gssize n = target_read(f->target, answers + have, MIN(all - have, 4),
                               NULL);

        g_assert_cmpint(n, >=, 0);
        if (n == 0) {
            await(f, POLLIN);
        }
        have += n;
    }
    for (unsigned i = 0; i < 1000; i++) {
        g_assert_true(!memcmp(answers + i * strlen(ANSWER), ANSWER,
                              strlen(ANSWER)));
    }
}

static void test_all(Fixture *f, const void *data)
{
    g_autofree uint8_t *pages = g_malloc(SIZE);
    GThread *thread = g_thread_new("peer", take, f);
    unsigned blocked = 0;
    GError *error = NULL;

    fill(pages);
    g_assert_true(target_connect(f->target, go_on, NULL, &error));
    put(f, pages);
    while (out_pending(f->out)) {
        g_assert_true(out_write(f->out, f->target, &error));
        if (out_pending(f->out)) {
            blocked++;
            await(f, POLLOUT);
        }
    }
    g_assert_cmpuint(blocked, >, 0);
    read_answers(f);
    g_thread_join(thread);
    g_assert_cmpuint(f->got->len, ==, SIZE);
    g_assert_true(!memcmp(f->got->data, pages, SIZE));
}

static gpointer take_little(gpointer opaque)
{
    Fixture *f = opaque;
    uint8_t byte;

    greet(f);
    while (conn_read_some(f->conn, &byte, 1, NULL) > 0) {
        ;
    }
    conn_free(f->conn);
    return NULL;
}

/* An error, not the end of a process that has others' checkpoints. */
static void test_truncated(Fixture *f, const void *data)
{
    int fd = memfd_create("pages", MFD_CLOEXEC);
    GThread *thread = g_thread_new("peer", take_little, f);
    g_autoptr(GError) error = NULL;
    uint8_t *pages;

    g_assert_cmpint(ftruncate(fd, 8 * PAGE), ==, 0);
    pages = mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    g_assert_cmpint(ftruncate(fd, PAGE), ==, 0);
    g_assert_true(target_connect(f->target, go_on, NULL, NULL));
    out_refer(f->out, pages, 8 * PAGE);
    while (out_write(f->out, f->target, &error)) {
        await(f, POLLOUT);
    }
    g_assert_nonnull(strstr(error->message, "truncated"));
    g_clear_pointer(&f->target, target_free);
    g_thread_join(thread);
    munmap(pages, 8 * PAGE);
    close(fd);
}

static gpointer hang(gpointer opaque)
{
    Fixture *f = opaque;
    char byte;

    f->fd = accept(f->listener, NULL, NULL);
    while (read(f->fd, &byte, 1) > 0) {
        ;
    }
    close(f->fd);
    return NULL;
}

static bool three_times(void *counter)
{
    return ++*(unsigned *)counter < 3;
}

/* The other side is there, and does not answer: one can give up. */
static void test_hangs(Fixture *f, const void *data)
{
    GThread *thread = g_thread_new("peer", hang, f);
    g_autoptr(GError) error = NULL;
    unsigned count = 0;

    g_assert_false(target_connect(f->target, three_times, &count, &error));
    g_assert_nonnull(strstr(error->message, "told to"));
    g_assert_cmpuint(count, ==, 3);
    g_clear_pointer(&f->target, target_free);
    g_thread_join(thread);
}

#define ADD(name, tls, function) \
    g_test_add("/target/" name, Fixture, tls, setup, function, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("plain/all", NULL, test_all);
    ADD("plain/truncated", NULL, test_truncated);
    ADD("tls/all", "tls", test_all);
    ADD("tls/truncated", "tls", test_truncated);
    ADD("tls/hangs", "tls", test_hangs);
    return g_test_run();
}
