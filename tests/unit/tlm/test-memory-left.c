/*
 * Unit tests of how much memory QEMU may still take: with made-up files of
 * /proc and cgroups v1 and v2
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include <glib/gstdio.h>
#include "checkpoint/memory-left.h"

#define HOST_LEFT (8 * GiB)
/* What a v1 cgroup without a limit says */
#define NO_LIMIT  "9223372036854771712"

/* Mounts of v1, as distributions have it, with v2 beside it */
#define V1_MOUNT  "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n" \
                  "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup " \
                  "rw,cpu\n" \
                  "35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup " \
                  "cgroup rw,memory\n" \
                  "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
#define V2_MOUNT  "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"

#define V1 "/sys/fs/cgroup/memory"
#define V2 "/sys/fs/cgroup"

typedef struct Tree {
    char *root;
} Tree;

static void put(const Tree *t, const char *dir, const char *file,
                const char *text)
{
    g_autofree char *in = g_strconcat(t->root, dir, NULL);
    g_autofree char *path = g_build_filename(in, file, NULL);

    g_assert_cmpint(g_mkdir_with_parents(in, 0755), ==, 0);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void put_bytes(const Tree *t, const char *dir, const char *file,
                      uint64_t bytes)
{
    g_autofree char *text = g_strdup_printf("%" PRIu64 "\n", bytes);

    put(t, dir, file, text);
}

/* A host with memory; @groups and @mounts may be NULL */
static void plant(Tree *t, const char *groups, const char *mounts)
{
    t->root = g_dir_make_tmp("memory-left-XXXXXX", NULL);
    g_assert_nonnull(t->root);
    put(t, "/proc", "meminfo",
        "MemTotal:       16777216 kB\n"
        "MemFree:         1048576 kB\n"
        "MemAvailable:    8388608 kB\n");
    if (groups) {
        put(t, "/proc/self", "cgroup", groups);
    }
    if (mounts) {
        put(t, "/proc/self", "mountinfo", mounts);
    }
}

static void clear(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *below = g_build_filename(path, name, NULL);

        clear(below);
    }
    g_assert_cmpint(g_remove(path), ==, 0);
}

static void fell(Tree *t)
{
    clear(t->root);
    g_free(t->root);
}

static void put_cgroup(const Tree *t, const char *dir)
{
    put(t, dir, "cgroup.procs", "");
}

static void put_v1(const Tree *t, const char *dir, uint64_t limit,
                   uint64_t used)
{
    put_cgroup(t, dir);
    put(t, dir, "memory.use_hierarchy", "1\n");
    put_bytes(t, dir, "memory.limit_in_bytes", limit);
    put_bytes(t, dir, "memory.usage_in_bytes", used);
}

static void put_v2(const Tree *t, const char *dir, const char *max,
                   const char *high, uint64_t used)
{
    put_cgroup(t, dir);
    put(t, dir, "memory.max", max);
    put(t, dir, "memory.high", high);
    put_bytes(t, dir, "memory.current", used);
}

static void check(const Tree *t, uint64_t left)
{
    g_assert_cmpuint(tlm_memory_left(t->root), ==, left);
}

static void test_host(void)
{
    Tree t;

    plant(&t, NULL, NULL);
    check(&t, HOST_LEFT);
    put(&t, "/proc", "meminfo", "MemTotal: 1 kB\nMemAvailable2: 7 kB\n");
    check(&t, UINT64_MAX);
    put(&t, "/proc", "meminfo", "MemAvailable:       0 kB\n");
    check(&t, 0);
    fell(&t);
}

/* Of this process, and of all that are above it */
static void test_v1(void)
{
    Tree t;

    plant(&t, "4:memory:/machine/vm\n3:cpu:/\n0::/elsewhere\n", V1_MOUNT);
    check(&t, HOST_LEFT);           /* no such directory */
    put_cgroup(&t, V1);
    put(&t, V1, "memory.limit_in_bytes", NO_LIMIT "\n");
    put(&t, V1, "memory.usage_in_bytes", "12345\n");
    put_v1(&t, V1 "/machine", 4 * GiB, 3 * GiB);
    put_v1(&t, V1 "/machine/vm", 2 * GiB, GiB / 2);
    check(&t, GiB);
    put_v1(&t, V1 "/machine", 4 * GiB, 2 * GiB);
    check(&t, 3 * GiB / 2);
    /* Above the limit: it was lowered */
    put_v1(&t, V1 "/machine/vm", GiB, 2 * GiB);
    check(&t, 0);
    fell(&t);
}

/* A parent that does not account for it has no say */
static void test_v1_not_hierarchical(void)
{
    Tree t;

    plant(&t, "4:cpu,memory:/a/b\n",
          "35 31 0:32 / /mnt/m rw - cgroup cgroup rw,cpu,memory\n");
    put_v1(&t, "/mnt/m/a", GiB, GiB);
    put_v1(&t, "/mnt/m/a/b", 2 * GiB, GiB / 2);
    check(&t, 0);
    put(&t, "/mnt/m/a", "memory.use_hierarchy", "0\n");
    check(&t, 3 * GiB / 2);
    fell(&t);
}

static void test_v2(void)
{
    Tree t;

    plant(&t, "0::/machine.slice/vm.scope\n", V2_MOUNT);
    put_cgroup(&t, V2);             /* the root has neither limit nor usage */
    put_v2(&t, V2 "/machine.slice", "max\n", "max\n", 7 * GiB);
    put_v2(&t, V2 "/machine.slice/vm.scope", "max\n", "max\n", 2 * GiB);
    check(&t, HOST_LEFT);
    put(&t, V2 "/machine.slice/vm.scope", "memory.max", "5368709120\n");
    check(&t, 3 * GiB);
    put(&t, V2 "/machine.slice/vm.scope", "memory.high", "4294967296\n");
    check(&t, 2 * GiB);
    put(&t, V2 "/machine.slice", "memory.max", "8589934592\n");
    check(&t, GiB);
    fell(&t);
}

/* What was read from files, or is written, can be dropped */
static void test_page_cache(void)
{
    Tree t;

    plant(&t, "4:memory:/a\n0::/b\n", V1_MOUNT);
    put_v1(&t, V1 "/a", 4 * GiB, 4 * GiB);
    check(&t, 0);
    put(&t, V1 "/a", "memory.stat",
        "cache 1\ninactive_file 1\ndirty 1\n"
        "total_cache 3221225472\ntotal_inactive_anon 7\n"
        "total_inactive_file 2147483648\n"
        "total_dirty 536870912\ntotal_writeback 536870912\n");
    check(&t, GiB);
    put(&t, V1 "/a", "memory.stat",
        "total_inactive_file 1024\ntotal_dirty 2048\n");
    check(&t, 0);
    put_v1(&t, V1 "/a", 8 * GiB, 0);
    put_v2(&t, V2 "/unified/b", "4294967296\n", "max\n", 4 * GiB);
    check(&t, 0);
    put(&t, V2 "/unified/b", "memory.stat",
        "anon 1\nfile 3221225472\nfile_dirty 1048576\n"
        "file_writeback 1048576\ninactive_file 3145728\n");
    check(&t, MiB);
    fell(&t);
}

/* A container sees a part of the hierarchy, as its root or not at all */
static void test_container(void)
{
    Tree t;

    plant(&t, "4:memory:/docker/x/vm\n",
          "35 31 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup "
          "rw,memory\n");
    put_v1(&t, V1, 2 * GiB, GiB);
    put_v1(&t, V1 "/vm", 8 * GiB, GiB);
    /* No cgroup: the hierarchy ends below it */
    put_bytes(&t, "/sys/fs/cgroup", "memory.limit_in_bytes", GiB);
    put_bytes(&t, "/sys/fs/cgroup", "memory.usage_in_bytes", GiB);
    check(&t, GiB);
    put(&t, "/proc/self", "cgroup", "4:memory:/../other\n");
    check(&t, HOST_LEFT);
    put(&t, "/proc/self", "cgroup", "4:memory:/docker/y\n");
    check(&t, HOST_LEFT);
    fell(&t);
}

/* Nobody is sent astray by what is there where this runs */
static void test_here(void)
{
    g_assert_cmpuint(tlm_memory_left(""), >, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memory-left/host", test_host);
    g_test_add_func("/memory-left/v1", test_v1);
    g_test_add_func("/memory-left/v1-not-hierarchical",
                    test_v1_not_hierarchical);
    g_test_add_func("/memory-left/v2", test_v2);
    g_test_add_func("/memory-left/page-cache", test_page_cache);
    g_test_add_func("/memory-left/container", test_container);
    g_test_add_func("/memory-left/here", test_here);
    return g_test_run();
}
