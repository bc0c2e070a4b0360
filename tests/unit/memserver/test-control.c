/*
 * Lines of the control connection; who sees what; manifests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "control.h"
#include "credentials.h"
#include "manifest.h"
#include "session.h"

#define SET "12345678-1234-1234-1234-123456789012"

typedef struct Fixture {
    char *dir;
    Config config;
    Server server;
    Claim *claim;                       /* of what is put there; or NULL */
} Fixture;

static void open_store(Fixture *f)
{
    f->server.store = store_new(&f->config.store, NULL);
    g_assert_nonnull(f->server.store);
}

static void setup(Fixture *f, const void *data)
{
    static char *admins[] = { (char *)"uid:0", NULL };

    f->dir = g_dir_make_tmp("tlm-memserver-XXXXXX", NULL);
    f->config.store = (StoreConfig) {
        .dir = f->dir, .memory = 1 << 30, .vm_memory = 64 << 20,
        .vm_disk = 64 << 20, .keep = 3, .max_vms = 3, .threads = 2,
        .admins = admins,
    };
    f->config.data = (char *)"tcp:127.0.0.1:0";
    f->config.max_channels = 8;
    f->config.max_sessions = 2;
    f->config.require_return_path = true;
    f->config.connect_timeout = f->config.stall_timeout = 60;
    f->server.config = &f->config;
    f->server.sessions = g_hash_table_new_full(
        g_int64_hash, g_int64_equal, NULL, (GDestroyNotify)session_unref);
    g_mutex_init(&f->server.lock);
    open_store(f);
}

static void teardown(Fixture *f, const void *data)
{
    g_autofree char *command = g_strdup_printf("rm -rf '%s'", f->dir);

    session_cancel_all(&f->server);
    g_hash_table_unref(f->server.sessions);
    store_free(f->server.store);
    g_assert_cmpint(system(command), ==, 0);
    g_free(f->dir);
}

static void expect(Fixture *f, const char *who, const char *line,
                   const char *part)
{
    g_autofree char *answer = control_line(&f->server, who, line,
                                           strlen(line), NULL);

    if (!strstr(answer, part)) {
        g_error("%s: %s instead of %s", line, answer, part);
    }
    g_assert_cmpint(answer[strlen(answer) - 1], ==, '\n');
}

static void test_errors(Fixture *f, const void *data)
{
    static const char *const cases[][2] = {
        { "", "no UTF-8" },
        { "\xff", "no UTF-8" },
        { "x", "no JSON" },
        { "[]", "no JSON object" },
        { "{} {}", "no JSON object" },
        { "{}", "a command is" },
        { "{\"execute\": 1}", "a command is" },
        { "{\"execute\": \"x\", \"id\": [7]}", "\"id\":[7]" },
        { "{\"execute\": \"x\"}", "no command 'x'" },
        { "{\"execute\": \"list\", \"arguments\": 1}", "must be an object" },
        { "{\"execute\": \"list\", \"arguments\": {\"x\": 1}}",
          "no argument 'x'" },
        { "{\"execute\": \"list\", \"arguments\": {\"\": 1}}",
          "no argument ''" },
        { "{\"execute\": \"list\", \"arguments\": {\"vm\": 1}}",
          "must be a string" },
        { "{\"execute\": \"list\", \"arguments\": {\"vm\": \"../x\"}}",
          "must be a name" },
        { "{\"execute\": \"list\", \"arguments\": {\"vm\": \"a\\u0000b\"}}",
          "must be a string" },
        { "{\"execute\": \"list\", \"arguments\": {\"vm\": \"x\"}}",
          "no virtual machine 'x'" },
        { "{\"execute\": \"prune\", \"arguments\": {\"vm\": \"x\"}}",
          "needs argument 'keep'" },
        { "{\"execute\": \"status\", \"arguments\": {\"session\": -1}}",
          "must be a number" },
        { "{\"execute\": \"status\", \"arguments\": {\"session\": 1}}",
          "no session 1" },
        { "{\"execute\": \"list\"}", "\"return\":[]" },
        { "{\"execute\": \"whoami\"}", "{\"you\":\"anyone\",\"id\":" },
        { "{\"execute\": \"outcome\", \"arguments\": {\"set\": \"x\", "
          "\"head-id\": \"y\"}}", "not a matter of this server" },
        { "{\"execute\": \"metrics\"}", "tlm_memserver_vms 0" },
    };
    g_autofree char *deep = g_strnfill(5000, '[');

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        expect(f, "anyone", cases[i][0], cases[i][1]);
    }
    expect(f, "anyone", deep, "no JSON object");
}

#define ANNOUNCE(vm, more) \
    "{\"execute\": \"announce\", \"arguments\": {\"vm\": \"" vm "\", " \
    "\"name\": \"one\", \"ram\": 1048576" more "}}"

static void test_announce(Fixture *f, const void *data)
{
    expect(f, "a", ANNOUNCE("v", ", \"channels\": 0"), "must be 1 to 8");
    expect(f, "a", ANNOUNCE("v", ", \"channels\": 9"), "must be 1 to 8");
    expect(f, "a", ANNOUNCE("v", ", \"level\": \"x\""), "memory or durable");
    expect(f, "a", ANNOUNCE("v", ", \"return-path\": false"), "insists");
    expect(f, "a", ANNOUNCE("v", ", \"parent\": \"p\""), "not in memory");
    expect(f, "a", ANNOUNCE("v", ", \"senders\": \"x\""), "list of names");
    expect(f, "a", ANNOUNCE("v", ", \"senders\": []"), "list of names");
    expect(f, "a", ANNOUNCE("v", ", \"senders\": [\"x\", 1]"), "list of names");
    expect(f, "a", "{\"execute\": \"announce\", \"arguments\": {\"vm\": "
           "\"v\", \"name\": \"one\", \"ram\": 99999999999}}", "quota");
    /* One at a time for a VM; others do not hear of it. */
    expect(f, "a", ANNOUNCE("v", ""), "\"uri\":\"tcp:127.0.0.1:");
    expect(f, "a", ANNOUNCE("v", ""), "is being received");
    expect(f, "b", ANNOUNCE("v", ""), "no virtual machine 'v' of b");
    expect(f, "b", ANNOUNCE("w", ""), "\"state\":\"announced\"");
    expect(f, "c", ANNOUNCE("x", ""), "receiving 2");
    expect(f, "uid:0", "{\"execute\": \"cancel\", \"arguments\": "
           "{\"session\": 999}}", "no session");
}

#define CONFIRM(more) \
    "{\"execute\": \"confirm\", \"arguments\": {\"session\": 1, " more "}}"

/* What the source is is told when it is known, once. */
static void test_confirm(Fixture *f, const void *data)
{
    expect(f, "a", ANNOUNCE("v", ", \"confirm\": true"), "\"asks\":true");
    expect(f, "a", CONFIRM("\"incremental\": true"), "no parent");
    expect(f, "a", CONFIRM("\"incremental\": false, \"source\": "
                           "{\"disks\": 1}"), "'disks' is not known");
    expect(f, "a", CONFIRM("\"incremental\": false, \"source\": "
                           "{\"disks\": []}"), "\"asks\":false");
    expect(f, "a", CONFIRM("\"incremental\": false"), "has been confirmed");
}

#define RESTORE(to, more) \
    "{\"execute\": \"restore\", \"arguments\": {\"vm\": \"v\", " \
    "\"to\": \"" to "\"" more "}}"

/* What is not refused comes to "no virtual machine" next. */
static void test_tls_restore(Fixture *f, const void *data)
{
    static const char tls[] = RESTORE("tcp:192.0.2.1:1", ", \"tls\": true");
    static const char plain[] = RESTORE("tcp:192.0.2.1:1", "");
    g_autofree char *dir = g_build_filename(f->dir, "keys", NULL);

    expect(f, "a", plain, "no virtual machine");
    credentials_psk(dir, "qemu", "ab");
    f->config.tls_client_problem = (char *)"set client-dir";
    expect(f, "a", tls, "TLS credentials of a client: set client-dir");
    f->config.tls_client = tls_client_creds("psk", dir, "qemu", NULL);
    expect(f, "a", tls, "no virtual machine");
    expect(f, "a", plain, "say tls=true, or allow-plain=true");
    expect(f, "a", RESTORE("tcp:192.0.2.1:1", ", \"allow-plain\": true"),
           "no virtual machine");
    expect(f, "a", RESTORE("tcp:127.0.0.1:1", ""), "no virtual machine");
    f->config.allow_plain = true;
    expect(f, "a", plain, "no virtual machine");
    tls_creds_free(f->config.tls_client);
}

/* A checkpoint with one page. */
static void put(Fixture *f, const char *who, const char *vm, const char *name,
                Level level, const char *error)
{
    g_autoptr(Layout) l = layout_new();
    g_autoptr(Checkpoint) c = checkpoint_new(vm, name);
    g_autoptr(GError) found = NULL;
    LayoutBlock block = { "pc.ram", 4 * PAGE_SIZE };
    MultifdPacket p = { .normal = 1, .block = "pc.ram" };
    SlabCursor cursor = { 0 };
    StoreTicket *t;
    void *where[MULTIFD_PAGES];

    t = store_begin(f->server.store, who, vm, name, NULL, level, &found);
    if (!t) {
        g_assert_nonnull(error);
        g_assert_nonnull(strstr(found->message, error));
        return;
    }
    l->machine = g_strdup("pc");
    l->total = block.length;
    g_array_append_val(l->blocks, block);
    c->generation = generation_new(l, t->slab, NULL, NULL);
    g_assert_true(generation_place(c->generation, &cursor, 0, &p, where,
                                   NULL));
    memset(where[0], 1, PAGE_SIZE);
    slab_close(t->slab, &cursor);
    generation_seal(c->generation, false);
    c->state = g_byte_array_new();
    c->machine = g_strdup("pc");
    c->ram = l->total;
    c->claim = claim_ref(f->claim);
    c->set = f->claim ? g_strdup(SET) : NULL;
    g_assert_true(store_write(t, c, NULL) && store_sign(t, c, NULL));
    store_commit(t, c);
    g_assert_null(error);
    store_end(t);
}

static unsigned num(Fixture *f, const char *who, const char *vm)
{
    g_autoptr(GPtrArray) list = store_list(f->server.store, who, vm, NULL);

    return list ? list->len : 0;
}

static void test_owners(Fixture *f, const void *data)
{
    g_autoptr(Checkpoint) c = NULL;

    put(f, "a", "v", "one", LEVEL_DURABLE, NULL);
    put(f, "a", "v", "one", LEVEL_DURABLE, "already");
    put(f, "b", "v", "two", LEVEL_DURABLE, "no virtual machine");
    put(f, "b", "w", "one", LEVEL_MEMORY, NULL);
    put(f, "b", "x", "one", LEVEL_MEMORY, NULL);
    put(f, "b", "y", "one", LEVEL_MEMORY, "3 virtual machines");
    g_assert_cmpuint(num(f, "a", NULL), ==, 1);
    g_assert_cmpuint(num(f, "b", NULL), ==, 2);
    g_assert_cmpuint(num(f, "c", NULL), ==, 0);
    g_assert_cmpuint(num(f, "uid:0", NULL), ==, 3);
    g_assert_null(store_get(f->server.store, "b", "v", NULL, NULL));
    g_assert_false(store_remove(f->server.store, "b", "v", "one", NULL, NULL));
    g_assert_null(store_prune(f->server.store, "b", "v", 0, NULL));
    expect(f, "b", "{\"execute\": \"show\", \"arguments\": {\"vm\": \"v\"}}",
           "no virtual machine");
    c = store_get(f->server.store, "a", "v", NULL, NULL);
    g_assert_cmpstr(c->name, ==, "one");
    /* The directory stays its owner's when it is empty. */
    g_assert_true(store_remove(f->server.store, "a", "v", "one", NULL, NULL));
    put(f, "b", "v", "two", LEVEL_DURABLE, "no virtual machine");
}

static bool settle(Fixture *f, const char *name, bool ready)
{
    return store_settle(f->server.store, "a", "v", name, SET, f->claim, ready,
                        NULL);
}

/* Of three pieces one is settled, one ready, one neither. */
static void test_tentative(Fixture *f, const void *data)
{
    static const char *const names[] = { "one", "two", "three" };
    g_autoptr(Claim) claim = claim_new(), other = claim_new();
    g_autoptr(Checkpoint) c = NULL;
    Store *s = f->server.store;

    f->claim = claim;
    for (unsigned i = 0; i < 3; i++) {
        put(f, "a", "v", names[i], i ? LEVEL_MEMORY : LEVEL_DURABLE, NULL);
    }
    g_assert_null(store_get(s, "a", "v", NULL, NULL));  /* the newest */
    g_assert_false(settle(f, "one", false));    /* is not ready */
    f->claim = other;
    g_assert_false(settle(f, "one", true));     /* is somebody else's */
    f->claim = claim;
    g_assert_true(settle(f, "one", true) && settle(f, "two", true));
    g_assert_true(settle(f, "one", false));
    claim_end(claim);
    store_give_up(s, claim);
    g_assert_cmpuint(num(f, "a", NULL), ==, 2);
    g_assert_false(settle(f, "two", false));    /* it is too late */
    g_assert_true(settle(f, "one", false));
    c = store_get(s, "a", "v", "two", NULL);
    g_assert_cmpstr(store_tentative(s, c), ==, "abandoned");
    /* What is complete when its client has gone does not stay, either. */
    put(f, "a", "v", "three", LEVEL_DURABLE, NULL);
    g_assert_cmpuint(num(f, "a", NULL), ==, 2);
    f->claim = NULL;
    put(f, "a", "v", "three", LEVEL_DURABLE, NULL);
    g_assert_cmpuint(num(f, "a", NULL), ==, 3);
}

/* What is found again, and what is kept. */
static void test_again(Fixture *f, const void *data)
{
    static const char *const names[] = { "one", "two", "three", "four" };
    g_autofree char *part = g_build_filename(f->dir, "v", "x.part", NULL);
    g_autofree char *lost = g_build_filename(f->dir, "v", "x.checkpoint",
                                             NULL);
    g_autofree char *three = g_build_filename(f->dir, "v",
                                              "three.checkpoint", NULL);
    g_autofree char *id = g_strdup(store_id(f->server.store));
    g_autoptr(Checkpoint) c = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        put(f, "a", "v", names[i], LEVEL_DURABLE, NULL);
    }
    put(f, "a", "w", "one", LEVEL_MEMORY, NULL);
    g_assert_cmpuint(num(f, "a", "v"), ==, 3);
    c = store_get(f->server.store, "a", "v", "two", NULL);
    g_assert_null(c->generation);       /* it is on the disk */
    store_free(f->server.store);

    g_assert_true(g_file_set_contents(part, "x", 1, NULL));
    g_assert_true(g_file_set_contents(lost, "x", 1, NULL));
    g_assert_cmpint(truncate(three, 100), ==, 0);
    open_store(f);
    g_assert_cmpstr(store_id(f->server.store), ==, id);
    g_assert_cmpint(access(part, F_OK), !=, 0);
    g_assert_cmpint(access(lost, F_OK), !=, 0);
    g_assert_cmpuint(num(f, "a", "v"), ==, 2);
    g_assert_cmpuint(num(f, "b", "v"), ==, 0);
    g_assert_cmpuint(num(f, "a", "w"), ==, 0);
    /* A second server must not have the directory. */
    g_assert_null(store_new(&f->config.store, NULL));
}

static const char *date_of(Fixture *f, const char *name)
{
    g_autoptr(Checkpoint) c = store_get(f->server.store, "a", "v", name, NULL);

    g_assert_nonnull(c);
    return c->created;                  /* the store has it, too */
}

/* The newest one stays the newest one. */
static void test_clock_set_back(Fixture *f, const void *data)
{
    g_autoptr(Checkpoint) c = NULL;
    g_autoptr(GPtrArray) gone = NULL;

    put(f, "a", "v", "one", LEVEL_DURABLE, NULL);
    c = store_get(f->server.store, "a", "v", "one", NULL);
    g_free(c->created);
    c->created = g_strdup("2999-12-31T23:59:59.999999Z");
    g_clear_pointer(&c, checkpoint_unref);
    put(f, "a", "v", "two", LEVEL_DURABLE, NULL);
    g_assert_cmpstr(date_of(f, "two"), ==, "3000-01-01T00:00:00.000000Z");
    store_free(f->server.store);

    open_store(f);
    put(f, "a", "v", "three", LEVEL_DURABLE, NULL);
    g_assert_cmpstr(date_of(f, "three"), ==, "3000-01-01T00:00:00.000001Z");
    store_free(f->server.store);

    open_store(f);
    gone = store_prune(f->server.store, "a", "v", 1, NULL);
    g_assert_cmpuint(gone->len, ==, 2);
    g_assert_nonnull(date_of(f, "three"));
}

#define SOURCE "{\"disks\": [{\"base\": \"/b\"}], \"domain\": \"<domain/>\"}"

/* Each byte of a manifest, changed: not read as it was, and no crash. */
static void test_manifest(void)
{
    g_autoptr(Checkpoint) c = checkpoint_new("v", "one");
    static const ManifestSum sums[1] = { "00" };
    g_autofree char *text = NULL, *again = NULL;
    struct json_object *o;
    size_t size;

    c->machine = g_strdup("pc-i440fx-10.0");
    c->source = g_strdup(SOURCE);
    c->state = g_byte_array_new();
    c->file.size = 4711;
    text = manifest_compose(c, sums, 1);
    size = strlen(text);
    for (size_t i = 0; i < size; i++) {
        g_autofree char *bad = g_strdup(text);
        g_autoptr(GArray) found = NULL;
        g_autoptr(Checkpoint) got = NULL;

        bad[i] ^= 1;
        got = manifest_parse("v", bad, size, &found, NULL);
        g_assert_true(!got || g_ascii_isspace(text[i]));
        g_clear_pointer(&got, checkpoint_unref);
        g_clear_pointer(&found, g_array_unref);
        /* A part of it */
        got = manifest_parse("v", text, i, &found, NULL);
        g_assert_true(!got || i == size - 1);   /* only "\n" is missing */
    }
    g_clear_pointer(&c, checkpoint_unref);
    c = manifest_parse("v", text, size, NULL, NULL);
    g_assert_cmpuint(c->file.size, ==, 4711);
    again = manifest_compose(c, sums, 1);
    /* Disks are where "tlm checkpoint" has them, and are not lost. */
    g_assert_cmpstr(again, ==, text);
    o = json_read_object(text, size, NULL);
    g_assert_cmpstr(json_get_string(o, "machine.domain"), ==, "<domain/>");
    g_assert_null(json_get(o, "machine.disks"));
    g_assert_cmpuint(json_object_array_length(json_get(o, "disks")), ==, 1);
    json_object_put(o);
}

/* What a client may say of the source; nothing else. */
static void test_source(void)
{
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        { SOURCE, true }, { "{}", true },
        { "{\"disks\": {}}", false }, { "{\"disks\": [1]}", false },
        { "{\"domain\": []}", false }, { "{\"command\": [{}]}", false },
        { "{\"ram\": \"1\"}", false }, { "[]", false },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct json_object *o = json_tokener_parse(cases[i].text);

        g_assert_cmpint(manifest_check_source(o, NULL), ==, cases[i].good);
        json_object_put(o);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    /* The server warns of files that are not whole. */
    g_log_set_always_fatal(G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL);
#define ADD(name, function) \
    g_test_add("/memserver/control/" name, Fixture, NULL, setup, function, \
               teardown)
    ADD("errors", test_errors);
    ADD("announce", test_announce);
    ADD("confirm", test_confirm);
    ADD("owners", test_owners);
    ADD("tls-restore", test_tls_restore);
    ADD("tentative", test_tentative);
    ADD("again", test_again);
    ADD("clock-set-back", test_clock_set_back);
    g_test_add_func("/memserver/control/manifest", test_manifest);
    g_test_add_func("/memserver/control/source", test_source);
    return g_test_run();
}
