/*
 * A disk that loses what was not brought to it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lossy-disk.h"

#define BLOCK 4096

/* A file or a directory, by whatever names */
typedef struct Node {
    bool is_dir;
    GByteArray *now, *safe;             /* content; safe: on the disk */
} Node;

/* A change of a directory: a name goes, a name comes, or both */
typedef struct Change {
    char *dir, *gone, *come;            /* paths */
    Node *node;
} Change;

static struct {
    char *dir;
    void (*before)(void *opaque);
    void *opaque;
    bool inside;                        /* of before() */
    unsigned fail;
    bool failed;
    GPtrArray *nodes;                   /* all of them */
    GHashTable *now, *safe;             /* path: Node */
    GArray *changes;                    /* Change, not synced */
    GHashTable *open;                   /* file descriptor: path */
} disk;

static Node *node_new(bool is_dir)
{
    Node *n = g_new0(Node, 1);

    n->is_dir = is_dir;
    n->now = g_byte_array_new();
    n->safe = g_byte_array_new();
    g_ptr_array_add(disk.nodes, n);
    return n;
}

static void node_free(void *opaque)
{
    Node *n = opaque;

    g_byte_array_unref(n->now);
    g_byte_array_unref(n->safe);
    g_free(n);
}

static void set(GHashTable *t, const char *path, Node *n)
{
    g_hash_table_insert(t, g_strdup(path), n);
}

static void apply(GHashTable *t, const Change *c)
{
    if (c->gone) {
        g_hash_table_remove(t, c->gone);
    }
    if (c->come) {
        set(t, c->come, c->node);
    }
}

static void change_clear(void *opaque)
{
    Change *c = opaque;

    g_free(c->dir);
    g_free(c->gone);
    g_free(c->come);
}

/* @gone and @come are in the same directory. */
static void change(const char *gone, const char *come, Node *n)
{
    Change c = { g_path_get_dirname(come ? come : gone), g_strdup(gone),
                 g_strdup(come), n };

    apply(disk.now, &c);
    g_array_append_val(disk.changes, c);
}

static void sync_names(const char *dir)
{
    for (unsigned i = 0; i < disk.changes->len; ) {
        Change *c = &g_array_index(disk.changes, Change, i);

        if (strcmp(c->dir, dir)) {
            i++;
            continue;
        }
        apply(disk.safe, c);
        g_array_remove_index(disk.changes, i);
    }
}

static void copy(GByteArray *to, const GByteArray *from)
{
    g_byte_array_set_size(to, from->len);
    if (from->len) {
        memcpy(to->data, from->data, from->len);
    }
}

static void resize(GByteArray *b, size_t size)
{
    size_t old = b->len;

    g_byte_array_set_size(b, size);
    if (size > old) {
        memset(b->data + old, 0, size - old);
    }
}

void lossy_disk_start(const char *dir, void (*before)(void *opaque),
                      void *opaque)
{
    disk.dir = g_strdup(dir);
    disk.before = before;
    disk.opaque = opaque;
    disk.fail = 0;
    disk.failed = false;
    disk.nodes = g_ptr_array_new_with_free_func(node_free);
    disk.now = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    disk.safe = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    disk.changes = g_array_new(false, false, sizeof(Change));
    g_array_set_clear_func(disk.changes, change_clear);
    disk.open = g_hash_table_new_full(NULL, NULL, NULL, g_free);
}

void lossy_disk_stop(void)
{
    g_clear_pointer(&disk.dir, g_free);
    g_ptr_array_unref(disk.nodes);
    g_hash_table_unref(disk.now);
    g_hash_table_unref(disk.safe);
    g_array_unref(disk.changes);
    g_hash_table_unref(disk.open);
}

void lossy_disk_fail(unsigned number)
{
    disk.fail = number;
    disk.failed = false;
}

bool lossy_disk_failed(void)
{
    return disk.failed;
}

/* What a loss of power leaves */

static bool kept(LossyChoice keep, GRand *rnd)
{
    return keep == LOSSY_ALL || (keep == LOSSY_SOME && g_rand_boolean(rnd));
}

static void write_node(const char *path, const Node *n, LossyChoice keep,
                       GRand *rnd)
{
    const GByteArray *size = kept(keep, rnd) ? n->now : n->safe;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size->len), ==, 0);
    for (size_t at = 0; at < size->len; at += BLOCK) {
        const GByteArray *from = kept(keep, rnd) ? n->now : n->safe;
        size_t left = MIN(BLOCK, size->len - at);

        if (at < from->len) {
            left = MIN(left, from->len - at);
            /* Holes stay holes. */
            if (from->data[at] ||
                memcmp(from->data + at, from->data + at + 1, left - 1)) {
                g_assert_cmpint(pwrite(fd, from->data + at, left, at), ==,
                                left);
            }
        }
    }
    close(fd);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void lossy_disk_crash(const char *to, LossyChoice keep, GRand *rnd)
{
    g_autoptr(GHashTable) left =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autofree char **paths = NULL;
    GHashTableIter i;
    void *path, *node;
    unsigned count;

    g_hash_table_iter_init(&i, disk.safe);
    while (g_hash_table_iter_next(&i, &path, &node)) {
        set(left, path, node);
    }
    for (unsigned k = 0; k < disk.changes->len; k++) {
        if (kept(keep, rnd)) {
            apply(left, &g_array_index(disk.changes, Change, k));
        }
    }
    paths = (char **)g_hash_table_get_keys_as_array(left, &count);
    qsort(paths, count, sizeof(*paths), by_path);
    for (unsigned k = 0; k < count; k++) {
        Node *n = g_hash_table_lookup(left, paths[k]);
        g_autofree char *new = g_strconcat(to, paths[k] + strlen(disk.dir),
                                           NULL);
        g_autofree char *dir = g_path_get_dirname(new);

        if (access(dir, F_OK)) {
            continue;                   /* its directory is lost */
        }
        if (n->is_dir) {
            g_assert_cmpint(mkdir(new, 0700), ==, 0);
        } else {
            write_node(new, n, keep, rnd);
        }
    }
}

/* The calls */

static bool noted(const char *path)
{
    return disk.dir && !disk.inside && path &&
           g_str_has_prefix(path, disk.dir);
}

static const char *path_of(int fd)
{
    return disk.dir && !disk.inside
           ? g_hash_table_lookup(disk.open, GINT_TO_POINTER(fd)) : NULL;
}

/* False: the call fails. */
static bool may(void)
{
    if (disk.before) {
        disk.inside = true;
        disk.before(disk.opaque);
        disk.inside = false;
    }
    if (!disk.fail || --disk.fail) {
        return true;
    }
    disk.failed = true;
    errno = EIO;
    return false;
}

int __real_open64(const char *path, int flags, ...);
int __real_close(int fd);
ssize_t __real_pwrite64(int fd, const void *from, size_t size, off_t at);
int __real_ftruncate64(int fd, off_t size);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_mkdir(const char *path, mode_t mode);
gboolean __real_g_file_set_contents_full(
    const char *path, const char *text, gssize size,
    GFileSetContentsFlags flags, int mode, GError **errp);

int __wrap_open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    Node *n;
    int fd;

    if (flags & O_CREAT) {
        va_list ap;

        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    if (!noted(path)) {
        return __real_open64(path, flags, mode);
    }
    if ((flags & (O_CREAT | O_TRUNC)) && !may()) {
        return -1;
    }
    fd = __real_open64(path, flags, mode);
    if (fd < 0) {
        return fd;
    }
    g_hash_table_insert(disk.open, GINT_TO_POINTER(fd), g_strdup(path));
    n = g_hash_table_lookup(disk.now, path);
    if (!n && (flags & O_CREAT)) {
        change(NULL, path, node_new(false));
    } else if (n && (flags & O_TRUNC)) {
        g_byte_array_set_size(n->now, 0);
    }
    return fd;
}

int __wrap_close(int fd)
{
    if (path_of(fd)) {
        g_hash_table_remove(disk.open, GINT_TO_POINTER(fd));
    }
    return __real_close(fd);
}

/* A file that is open keeps its name here, but for the ones renamed later. */
static Node *node_of(int fd)
{
    const char *path = path_of(fd);

    return path ? g_hash_table_lookup(disk.now, path) : NULL;
}

ssize_t __wrap_pwrite64(int fd, const void *from, size_t size, off_t at)
{
    Node *n = node_of(fd);
    ssize_t done;

    if (n && !may()) {
        return -1;
    }
    done = __real_pwrite64(fd, from, size, at);
    if (n && done > 0) {
        if (at + done > n->now->len) {
            resize(n->now, at + done);
        }
        memcpy(n->now->data + at, from, done);
    }
    return done;
}

int __wrap_ftruncate64(int fd, off_t size)
{
    Node *n = node_of(fd);

    if (n && !may()) {
        return -1;
    }
    if (n) {
        resize(n->now, size);
    }
    return __real_ftruncate64(fd, size);
}

/* The host's disk is not waited for, of any file: it would take minutes. */
static int synced(int fd)
{
    const char *path = path_of(fd);
    Node *n = node_of(fd);

    if (path && !may()) {
        return -1;
    }
    if (n && !n->is_dir) {
        copy(n->safe, n->now);
    } else if (path) {
        sync_names(path);
    }
    return 0;
}

int __wrap_fsync(int fd)
{
    return synced(fd);
}

int __wrap_fdatasync(int fd)
{
    return synced(fd);
}

int __wrap_rename(const char *from, const char *to)
{
    int done;

    if (noted(from) && !may()) {
        return -1;
    }
    done = __real_rename(from, to);
    if (!done && noted(from)) {
        change(from, to, g_hash_table_lookup(disk.now, from));
    }
    return done;
}

int __wrap_unlink(const char *path)
{
    int done;

    if (noted(path) && !access(path, F_OK) && !may()) {
        return -1;
    }
    done = __real_unlink(path);
    if (!done && noted(path)) {
        change(path, NULL, NULL);
    }
    return done;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    int done;

    if (noted(path) && !may()) {
        return -1;
    }
    done = __real_mkdir(path, mode);
    if (!done && noted(path)) {
        change(NULL, path, node_new(true));
    }
    return done;
}

/* GLib syncs the content, and renames it into its place. */
gboolean __wrap_g_file_set_contents_full(
    const char *path, const char *text, gssize size,
    GFileSetContentsFlags flags, int mode, GError **errp)
{
    static unsigned serial;
    g_autofree char *draft = g_strdup_printf("%s.%06u", path, ++serial);
    Node *n;

    if (!noted(path)) {
        return __real_g_file_set_contents_full(path, text, size, flags, mode,
                                               errp);
    }
    n = node_new(false);
    for (unsigned i = 0; i < 3; i++) {
        if (!may()) {
            g_set_error(errp, G_FILE_ERROR, G_FILE_ERROR_IO, "I/O error");
            return false;
        }
        if (i == 0) {
            change(NULL, draft, n);
            g_byte_array_append(n->now, (void *)text,
                                size < 0 ? strlen(text) : size);
        } else if (i == 1) {
            copy(n->safe, n->now);
        } else {
            change(draft, path, n);
        }
    }
    return __real_g_file_set_contents_full(path, text, size, flags, mode,
                                           errp);
}
