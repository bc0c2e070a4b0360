/*
 * TLS of a server and of its clients: who is believed, and what is told of
 * those who are not
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "conn.h"
#include "credentials.h"

typedef struct Fixture {
    char *dir;
} Fixture;

/* One connection to a server. */
typedef struct Attempt {
    TlsCreds *server, *client;
    int listener;
    char *address;
    GError *at_server, *at_client;
    char *who;                          /* the client, as the server sees it */
} Attempt;

static char *place(Fixture *f, const char *name)
{
    return g_build_filename(f->dir, name, NULL);
}

static void setup(Fixture *f, const void *data)
{
    static const struct {
        const char *place, *side, *name;
        int days;
    } good[] = {
        { "server", "server", "127.0.0.1", 2 },
        { "named", "server", "backup.example", 2 },
        { "old-server", "server", "127.0.0.1", -1 },
        { "alice", "client", "alice", 2 },
        { "old-alice", "client", "alice", -1 },
    };
    Authority *ours = authority_new("ours"), *other = authority_new("other");

    f->dir = g_dir_make_tmp("tlm-tls-XXXXXX", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *dir = place(f, good[i].place);

        authority_issue(ours, dir, good[i].side, good[i].name, good[i].days);
    }
    g_autofree char *eve = place(f, "eve");
    g_autofree char *stranger = place(f, "stranger");
    g_autofree char *keys = place(f, "keys");
    g_autofree char *other_keys = place(f, "other-keys");

    /* She trusts our authority, which does not know her. */
    authority_issue(other, stranger, "client", "alice", 2);
    authority_issue(ours, stranger, "server", "127.0.0.1", 2);
    authority_issue(other, eve, "server", "127.0.0.1", 2);
    credentials_psk(keys, "qemu", "ab");
    credentials_psk(other_keys, "qemu", "cd");
    authority_free(ours);
    authority_free(other);
}

static void teardown(Fixture *f, const void *data)
{
    g_autofree char *command = g_strdup_printf("rm -rf '%s'", f->dir);

    g_assert_cmpint(system(command), ==, 0);
    g_free(f->dir);
}

static gpointer serve(gpointer opaque)
{
    Attempt *a = opaque;
    Conn *c = conn_new(accept(a->listener, NULL, NULL));

    conn_impatient(c, 60);
    if (conn_accept_tls(c, a->server, &a->at_server)) {
        a->who = g_strdup(conn_peer(c));
        conn_write(c, "!", 1, &a->at_server);
        conn_end(c);
    }
    conn_free(c);
    return NULL;
}

static void attempt(Fixture *f, Attempt *a, const char *server,
                    const char *client, const char *host)
{
    const char *kind = strstr(server, "keys") ? "psk" : "x509";
    g_autofree char *server_dir = place(f, server);
    g_autofree char *client_dir = place(f, client);
    GError *error = NULL;
    GThread *thread;
    Conn *c;
    char answer = 0;

    a->server = tls_server_creds(kind, server_dir, &error);
    g_assert_no_error(error);
    a->client = tls_client_creds(kind, client_dir, "qemu", &error);
    g_assert_no_error(error);
    a->listener = address_listen("tcp:127.0.0.1:0", 0, &a->address, NULL);
    thread = g_thread_new("server", serve, a);
    c = conn_open(a->address, a->client, host, &a->at_client);
    if (c) {
        /* With TLS 1.3 a client hears only now that it is refused. */
        if (conn_read(c, &answer, 1, &a->at_client)) {
            g_assert_cmpint(answer, ==, '!');
        }
        conn_free(c);
    }
    g_thread_join(thread);
    close(a->listener);
}

static void attempt_clear(Attempt *a)
{
    tls_creds_free(a->server);
    tls_creds_free(a->client);
    g_clear_error(&a->at_server);
    g_clear_error(&a->at_client);
    g_free(a->address);
    g_free(a->who);
}

static void test_good(Fixture *f, const void *data)
{
    static const struct {
        const char *server, *client, *host, *who;
    } cases[] = {
        { "server", "alice", NULL, "x509:CN=alice" },
        { "named", "alice", "backup.example", "x509:CN=alice" },
        { "keys", "keys", NULL, "psk:qemu" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Attempt a = { 0 };

        attempt(f, &a, cases[i].server, cases[i].client, cases[i].host);
        g_assert_no_error(a.at_server);
        g_assert_no_error(a.at_client);
        g_assert_cmpstr(a.who, ==, cases[i].who);
        g_assert_cmpstr(tls_client_name(a.client), ==, cases[i].who);
        attempt_clear(&a);
    }
}

/* Neither side takes the other for somebody else, and it is told why. */
static void test_refused(Fixture *f, const void *data)
{
    static const struct {
        const char *server, *client, *host, *at_client, *at_server;
    } cases[] = {
        { "server", "alice", "backup.example", "does not match", "refuses" },
        { "named", "alice", NULL, "does not match", "refuses" },
        { "old-server", "alice", NULL, "expired", "refuses" },
        { "eve", "alice", NULL, "issuer is unknown", "refuses" },
        { "server", "old-alice", NULL, "refuses", "expired" },
        { "server", "stranger", NULL, "refuses", "is required" },
        { "keys", "other-keys", NULL, "refuses", "TLS handshake" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Attempt a = { 0 };

        attempt(f, &a, cases[i].server, cases[i].client, cases[i].host);
        if (!a.at_client || !strstr(a.at_client->message, cases[i].at_client)) {
            g_error("case %u: the client says '%s'", i,
                    a.at_client ? a.at_client->message : "good");
        }
        if (!a.at_server || !strstr(a.at_server->message, cases[i].at_server)) {
            g_error("case %u: the server says '%s'", i,
                    a.at_server ? a.at_server->message : "good");
        }
        g_assert_null(a.who);
        attempt_clear(&a);
    }
}

static void test_credentials(Fixture *f, const void *data)
{
    static const struct {
        const char *kind, *place, *user, *error;
    } cases[] = {
        { "x509", "nowhere", NULL, "nowhere" },
        { "x509", "server", NULL, "client-cert.pem" },
        { "psk", "keys", "alice", "has no user alice" },
        { "psk", "server", "qemu", "keys.psk" },
        { "other", "keys", NULL, "x509 or psk" },
    };
    g_autofree char *alice = place(f, "alice");
    TlsCreds *c = tls_client_creds("x509", alice, NULL, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_null(tls_session(c, NULL, &error));
    g_assert_nonnull(strstr(error->message, "no host name"));
    tls_creds_free(c);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *dir = place(f, cases[i].place);
        g_autoptr(GError) why = NULL;

        g_assert_null(tls_client_creds(cases[i].kind, dir, cases[i].user,
                                       &why));
        g_assert_nonnull(strstr(why->message, cases[i].error));
    }
}

static gpointer serve_one_who_goes(gpointer opaque)
{
    Attempt *a = opaque;
    struct pollfd p = {
        .fd = accept(a->listener, NULL, NULL), .events = POLLRDHUP,
    };
    Conn *c = conn_new(p.fd);
    char byte = 0;

    g_assert_true(conn_accept_tls(c, a->server, NULL));
    g_assert_true(conn_write(c, &byte, 1, NULL));
    g_assert_cmpint(poll(&p, 1, -1), ==, 1);
    while (conn_write(c, &byte, 1, &a->at_server)) {
        ;
    }
    conn_free(c);
    return NULL;
}

/* A peer that has gone must not end the process, by SIGPIPE. */
static void test_gone(Fixture *f, const void *data)
{
    g_autofree char *keys = place(f, "keys");
    Attempt a = {
        .server = tls_server_creds("psk", keys, NULL),
        .client = tls_client_creds("psk", keys, "qemu", NULL),
    };
    GThread *thread;
    Conn *c;
    char byte;

    /* Whoever started this test may ignore it. */
    signal(SIGPIPE, SIG_DFL);
    a.listener = address_listen("tcp:127.0.0.1:0", 0, &a.address, NULL);
    thread = g_thread_new("server", serve_one_who_goes, &a);
    c = conn_open(a.address, a.client, NULL, NULL);
    g_assert_true(conn_read(c, &byte, 1, NULL));
    conn_free(c);
    g_thread_join(thread);
    g_assert_nonnull(a.at_server);
    close(a.listener);
    attempt_clear(&a);
}

/* One that does not speak TLS gets no answer that it might misunderstand. */
static void test_plain(Fixture *f, const void *data)
{
    static const char line[] = "{\"execute\": \"announce\"}\n";
    g_autofree char *keys = place(f, "keys");
    Attempt a = { .server = tls_server_creds("psk", keys, NULL) };
    GThread *thread;
    Conn *c;
    char byte;

    a.listener = address_listen("tcp:127.0.0.1:0", 0, &a.address, NULL);
    thread = g_thread_new("server", serve, &a);
    c = conn_open(a.address, NULL, NULL, NULL);
    g_assert_true(conn_write(c, line, strlen(line), NULL));
    g_assert_cmpint(conn_read_some(c, &byte, 1, NULL), <=, 0);
    conn_free(c);
    g_thread_join(thread);
    g_assert_nonnull(a.at_server);
    close(a.listener);
    attempt_clear(&a);
}

#define ADD(name, function) \
    g_test_add("/memserver/tls/" name, Fixture, NULL, setup, function, \
               teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("good", test_good);
    ADD("refused", test_refused);
    ADD("credentials", test_credentials);
    ADD("gone", test_gone);
    ADD("plain", test_plain);
    return g_test_run();
}
