/*
 * Power is lost, or a call fails, at each point where the store changes its
 * directory
 *
 * After a loss of power a server finds what was promised, with its content,
 * and nothing else; what is left over is removed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lossy-disk.h"
#include "manifest.h"
#include "store.h"
#include "sums.h"

#define WHO "a"
#define VM "v"
/* At each point: nothing or all of what was not synced, or some of it */
#define LOSSES 4

/* Memory: nothing here waits for a disk. */
#define PLACE "/dev/shm"

typedef enum Promise { ABSENT, PERHAPS, PROMISED } Promise;

typedef struct Name {
    const char *name;
    Promise promise;
    unsigned serial;                    /* of the content */
} Name;

typedef struct Fixture {
    char *place, *dir, *after;
    StoreConfig config;
    Store *store;
    Name names[4];
    unsigned serial, points;
    bool watched;                       /* power is lost at each point */
    GRand *rnd;
} Fixture;

static void remove_tree(const char *path)
{
    g_autoptr(GDir) d = g_dir_open(path, 0, NULL);
    const char *name;

    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *inner = g_build_filename(path, name, NULL);

        remove_tree(inner);
    }
    g_remove(path);
}

static Name *name_of(Fixture *f, const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(f->names); i++) {
        if (!strcmp(f->names[i].name, name)) {
            return &f->names[i];
        }
    }
    g_assert_not_reached();
}

static void fill(void *page, const char *name, unsigned serial)
{
    memset(page, 0, PAGE_SIZE);
    g_snprintf(page, PAGE_SIZE, "page of %s, %u", name, serial);
}

/* Whether @s has it; then it has the level that was asked for. */
static bool save(Store *s, const char *name, unsigned serial)
{
    g_autoptr(Layout) l = layout_new();
    g_autoptr(Checkpoint) c = checkpoint_new(VM, name);
    LayoutBlock block = { "pc.ram", 4 * PAGE_SIZE };
    MultifdPacket p = { .normal = 1, .block = "pc.ram" };
    SlabCursor cursor = { 0 };
    void *where[MULTIFD_PAGES];
    StoreTicket *t;
    bool ok;

    t = store_begin(s, WHO, VM, name, NULL, LEVEL_DURABLE, NULL);
    if (!t) {
        return false;
    }
    l->machine = g_strdup("pc");
    l->total = block.length;
    g_array_append_val(l->blocks, block);
    c->generation = generation_new(l, t->slab, NULL, NULL);
    g_assert_true(generation_place(c->generation, &cursor, 0, &p, where,
                                   NULL));
    fill(where[0], name, serial);
    slab_close(t->slab, &cursor);
    generation_seal(c->generation, false);
    c->state = g_byte_array_new();
    c->machine = g_strdup("pc");
    c->ram = l->total;
    ok = store_write(t, c, NULL) && store_sign(t, c, NULL);
    if (ok) {
        store_commit(t, c);
    } else {
        store_discard(t, c);
    }
    store_end(t);
    return ok;
}

/* The one in the store is whole, and has the page of its name. */
static void assert_whole(const Store *s, const Checkpoint *c, const Name *n)
{
    g_autofree char *path = store_path(s, c, "checkpoint");
    g_autofree char *manifest = store_path(s, c, "json");
    g_autofree char *text = NULL, *data = NULL;
    g_autoptr(Checkpoint) parsed = NULL;
    g_autoptr(GArray) sums = NULL;
    g_autoptr(GError) error = NULL;
    char page[PAGE_SIZE];
    size_t size;

    g_assert_true(g_file_get_contents(manifest, &text, &size, NULL));
    parsed = manifest_parse(VM, text, size, &sums, &error);
    g_assert_no_error(error);
    sums_verify(path, c->file.size, sums, 1, &error);
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    fill(page, c->name, n->serial);
    g_assert_nonnull(memmem(data, size, page, PAGE_SIZE));
}

/* A manifest without a file */
static bool is_alone(const char *dir, const char *file)
{
    g_autofree char *other = NULL;

    if (*file == '.' || !g_str_has_suffix(file, ".json")) {
        return false;
    }
    other = g_strdup_printf("%s/%.*s.checkpoint", dir,
                            (int)(strlen(file) - strlen(".json")), file);
    return access(other, F_OK);
}

/* Files of the virtual machine, of those that it has and no others */
static void assert_no_others(const char *dir, const GPtrArray *list)
{
    g_autofree char *path = g_build_filename(dir, VM, NULL);
    g_autofree char *owner = g_build_filename(path, ".owner", NULL);
    g_autoptr(GDir) d = g_dir_open(path, 0, NULL);
    bool owned = !access(owner, F_OK);
    const char *file;

    /* Without an owner it is not a virtual machine's yet, and is left alone. */
    while (d && owned && (file = g_dir_read_name(d))) {
        bool known = !strcmp(file, ".owner") || !strcmp(file, ".lock") ||
                     is_alone(path, file);

        for (unsigned i = 0; list && i < list->len; i++) {
            const Checkpoint *c = g_ptr_array_index(list, i);
            g_autofree char *a = g_strconcat(c->name, ".checkpoint", NULL);
            g_autofree char *b = g_strconcat(c->name, ".json", NULL);

            known |= !strcmp(file, a) || !strcmp(file, b);
        }
        if (!known) {
            g_error("%s is left over", file);
        }
    }
}

static void assert_found(Fixture *f, Store *s, const char *dir)
{
    g_autoptr(GPtrArray) list = store_list(s, WHO, VM, NULL);
    unsigned promised = 0;

    for (unsigned i = 0; list && i < list->len; i++) {
        const Checkpoint *c = g_ptr_array_index(list, i);
        const Name *n = name_of(f, c->name);

        g_assert_cmpint(n->promise, !=, ABSENT);
        promised += n->promise == PROMISED;
        assert_whole(s, c, n);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(f->names); i++) {
        promised -= f->names[i].promise == PROMISED;
    }
    g_assert_cmpuint(promised, ==, 0);
    assert_no_others(dir, list);
}

/* Power is lost now; the next server, and with @next one after it has saved. */
static void lose_power(Fixture *f, LossyChoice keep, bool next)
{
    StoreConfig config = f->config;

    remove_tree(f->after);
    g_mkdir(f->after, 0700);
    lossy_disk_crash(f->after, keep, f->rnd);
    config.dir = f->after;
    config.keep = 0;
    for (unsigned i = 0; i < 1 + next; i++) {
        Store *s = store_new(&config, NULL);

        g_assert_nonnull(s);
        assert_found(f, s, f->after);
        if (i < next) {
            g_assert_true(save(s, "next", 0));
            name_of(f, "next")->promise = PROMISED;
        }
        store_free(s);
    }
    name_of(f, "next")->promise = ABSENT;
}

static void at_each_point(void *opaque)
{
    Fixture *f = opaque;

    if (!f->watched) {
        return;
    }
    f->points++;
    for (unsigned i = 0; i < LOSSES; i++) {
        lose_power(f, i == 0 ? LOSSY_NOTHING : i == 1 ? LOSSY_ALL : LOSSY_SOME,
                   i == LOSSES - 1);
    }
}

/* Steps of the scenario */

static bool step_save(Fixture *f, const char *name)
{
    Name *n = name_of(f, name);
    bool ok;

    n->promise = PERHAPS;
    n->serial = ++f->serial;
    ok = save(f->store, name, n->serial);
    if (ok) {
        n->promise = PROMISED;
    }
    return ok;
}

static bool step_remove(Fixture *f, const char *name)
{
    Name *n = name_of(f, name);
    bool ok;

    n->promise = PERHAPS;
    ok = store_remove(f->store, WHO, VM, name, NULL, NULL);
    if (ok) {
        n->promise = ABSENT;
    }
    return ok;
}

static void restart(Fixture *f)
{
    g_clear_pointer(&f->store, store_free);
    f->store = store_new(&f->config, NULL);
    g_assert_nonnull(f->store);
}

static void setup(Fixture *f, const void *data)
{
    *f = (Fixture) {
        .names = { { "one" }, { "two" }, { "three" }, { "next" } },
        .rnd = g_rand_new_with_seed(g_test_rand_int()),
    };
    f->place = access(PLACE, W_OK) ? g_dir_make_tmp("tlm-power-XXXXXX", NULL)
               : g_mkdtemp(g_strdup(PLACE "/tlm-power-XXXXXX"));
    f->dir = g_build_filename(f->place, "now", NULL);
    f->after = g_build_filename(f->place, "after", NULL);
    g_mkdir(f->dir, 0700);
    g_mkdir(f->after, 0700);
    lossy_disk_start(f->dir, at_each_point, f);
    f->watched = true;
    f->config = (StoreConfig) {
        .dir = f->dir, .memory = 64 << 20, .vm_memory = 64 << 20,
        .vm_disk = 1 << 30, .max_vms = 4, .threads = 1,
    };
}

static void teardown(Fixture *f, const void *data)
{
    g_clear_pointer(&f->store, store_free);
    lossy_disk_stop();
    remove_tree(f->place);
    g_rand_free(f->rnd);
    g_free(f->place);
    g_free(f->dir);
    g_free(f->after);
}

/* A name that is used again, and a server that starts again */
static void test_each_point(Fixture *f, const void *data)
{
    restart(f);
    g_assert_true(step_save(f, "one"));
    g_assert_true(step_save(f, "two"));
    g_assert_true(step_remove(f, "one"));
    g_assert_true(step_save(f, "one"));
    restart(f);
    assert_found(f, f->store, f->dir);
    g_assert_true(step_save(f, "three"));
    g_assert_true(step_remove(f, "two"));
    at_each_point(f);
    /* 3 for a machine's directory, 10 for a checkpoint, 3 to remove one */
    g_assert_cmpuint(f->points, >, 40);
}

/* The oldest goes when there is one too many. */
static void test_keep(Fixture *f, const void *data)
{
    f->config.keep = 1;
    restart(f);
    g_assert_true(step_save(f, "one"));
    name_of(f, "one")->promise = PERHAPS;
    g_assert_true(step_save(f, "two"));
    name_of(f, "one")->promise = ABSENT;
    at_each_point(f);
}

static void sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    g_assert_cmpint(fsync(fd), ==, 0);
    close(fd);
}

/*
 * A manifest whose file is gone is left alone.  It must not become that of
 * another checkpoint with its name, whose file has the same size.
 */
static void test_old_manifest(Fixture *f, const void *data)
{
    g_autofree char *dir = g_build_filename(f->dir, VM, NULL);
    g_autofree char *path = g_build_filename(dir, "one.checkpoint", NULL);

    f->watched = false;
    restart(f);
    g_assert_true(step_save(f, "one"));
    g_assert_cmpint(unlink(path), ==, 0);
    sync_directory(dir);
    name_of(f, "one")->promise = ABSENT;
    restart(f);
    f->watched = true;
    g_assert_true(step_save(f, "one"));
    at_each_point(f);
}

/*
 * A server is killed when its directory of a virtual machine is not on the
 * disk yet.  The next one must not take it for safe.
 */
static void test_killed_before(Fixture *f, const void *data)
{
    f->watched = false;
    restart(f);
    /* .lock; mkdir; three calls for .owner; then it is synced, twice */
    lossy_disk_fail(5);
    g_assert_false(step_save(f, "one"));
    g_assert_true(lossy_disk_failed());
    restart(f);
    g_assert_true(step_save(f, "one"));
    f->watched = true;
    at_each_point(f);
}

static bool one_failure(Fixture *f, unsigned number)
{
    static const char *const names[] = { "one", "two" };
    bool failed, ok[2];

    restart(f);
    lossy_disk_fail(number);
    for (unsigned i = 0; i < 2; i++) {
        ok[i] = step_save(f, names[i]);
    }
    failed = lossy_disk_failed();
    lossy_disk_fail(0);
    at_each_point(f);
    restart(f);
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(Checkpoint) c = store_get(f->store, WHO, VM, names[i], NULL);

        g_assert_true(!c == !ok[i]);
        g_assert_true(ok[i] || step_save(f, names[i]));
    }
    assert_found(f, f->store, f->dir);
    at_each_point(f);
    return failed;
}

/* One call fails.  What was told is true, and the next save is a good one. */
static void test_each_failure(Fixture *f, const void *data)
{
    unsigned number = 0;

    do {
        number++;
        teardown(f, data);
        setup(f, data);
        lossy_disk_stop();
        lossy_disk_start(f->dir, NULL, NULL);
    } while (one_failure(f, number));
    g_assert_cmpuint(number, >, 20);
}

/* That something was removed, or left alone, is said a thousand times. */
static void log_errors(const char *domain, GLogLevelFlags level,
                       const char *text, void *opaque)
{
    if (level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL)) {
        g_log_default_handler(domain, level, text, opaque);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_log_set_always_fatal(G_LOG_FATAL_MASK);
    g_log_set_default_handler(log_errors, NULL);
#define TEST(name, function)                                            \
    g_test_add("/memserver/power-loss/" name, Fixture, NULL, setup,     \
               function, teardown)
    TEST("each-point", test_each_point);
    TEST("keep", test_keep);
    TEST("old-manifest", test_old_manifest);
    TEST("killed-before", test_killed_before);
    TEST("each-failure", test_each_failure);
    return g_test_run();
}
