/*
 * TLM checkpoint: how much memory QEMU may still take
 *
 * A cgroup's usage has the page cache in it, which is all of the limit soon
 * where QEMU writes a checkpoint to a file.  The kernel takes back what is
 * clean and was not used for a while: that counts as left, as it does in the
 * host's MemAvailable.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "../cgroup-dir.h"
#include "memory-left.h"

typedef struct Hierarchy {
    bool v2;
    /* Files of a cgroup */
    const char *used;
    const char *limit[2];       /* the lower one holds */
    /* Lines of its memory.stat, with all cgroups below it */
    const char *cache;
    const char *unwritten[2];
} Hierarchy;

static const Hierarchy hierarchies[] = {
    {
        .v2 = true, .used = "memory.current",
        /* Above "high" all that QEMU does is slow, the guest included */
        .limit = { "memory.max", "memory.high" },
        .cache = "inactive_file",
        .unwritten = { "file_dirty", "file_writeback" },
    }, {
        .used = "memory.usage_in_bytes", .limit = { "memory.limit_in_bytes" },
        .cache = "total_inactive_file",
        .unwritten = { "total_dirty", "total_writeback" },
    },
};

/* NULL: it cannot be read */
static char *read_file(const char *dir, const char *file)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? text : NULL;
}

/* "max", or what cannot be read: UINT64_MAX */
static uint64_t read_bytes(const char *dir, const char *file)
{
    g_autofree char *text = file ? read_file(dir, file) : NULL;

    return text && g_ascii_isdigit(text[0]) ?
           g_ascii_strtoull(text, NULL, 10) : UINT64_MAX;
}

/* From lines of a name and a number; @none if there is no such line */
static uint64_t find_number(const char *text, const char *name, uint64_t none)
{
    size_t len = strlen(name);
    const char *line = text;

    while (line && *line) {
        if (!strncmp(line, name, len) && g_ascii_isspace(line[len])) {
            return g_ascii_strtoull(line + len, NULL, 10);
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return none;
}

static uint64_t host_left(const char *root)
{
    g_autofree char *text = read_file(root, "/proc/meminfo");
    uint64_t kib = find_number(text, "MemAvailable:", UINT64_MAX);

    return kib == UINT64_MAX ? kib : kib * KiB;
}

/* What the kernel takes back when others want it, and waits for no disk */
static uint64_t can_be_dropped(const char *dir, const Hierarchy *h)
{
    g_autofree char *stat = read_file(dir, "memory.stat");
    uint64_t cache = find_number(stat, h->cache, 0);
    uint64_t unwritten = find_number(stat, h->unwritten[0], 0) +
                         find_number(stat, h->unwritten[1], 0);

    return cache - MIN(cache, unwritten);
}

static uint64_t cgroup_left(const char *dir, const Hierarchy *h)
{
    uint64_t limit = MIN(read_bytes(dir, h->limit[0]),
                         read_bytes(dir, h->limit[1]));
    uint64_t used = read_bytes(dir, h->used);

    if (limit == UINT64_MAX || used == UINT64_MAX) {
        return UINT64_MAX;
    }
    used -= MIN(used, can_be_dropped(dir, h));
    return limit - MIN(limit, used);
}

/* Makes the parent of @dir; false: it has none whose limit holds */
static bool to_parent(char *dir)
{
    *strrchr(dir, '/') = '\0';
    /* v1, before Linux 5.11: not if the parent does not account for it */
    return read_bytes(dir, "memory.use_hierarchy") != 0;
}

static bool is_cgroup(const char *dir)
{
    g_autofree char *procs = g_build_filename(dir, "cgroup.procs", NULL);

    return *dir && g_file_test(procs, G_FILE_TEST_EXISTS);
}

uint64_t tlm_memory_left(const char *root)
{
    g_autofree char *groups = read_file(root, "/proc/self/cgroup");
    uint64_t left = host_left(root);

    for (unsigned i = 0; groups && i < ARRAY_SIZE(hierarchies); i++) {
        const Hierarchy *h = &hierarchies[i];
        g_autofree char *path = tlm_cgroup_path(groups, "memory", h->v2);
        g_autofree char *dir = path ? tlm_cgroup_dir(root, "memory", h->v2,
                                                     path) : NULL;

        if (!dir) {
            continue;
        }
        while (is_cgroup(dir)) {
            left = MIN(left, cgroup_left(dir, h));
            if (!to_parent(dir)) {
                break;
            }
        }
    }
    return left;
}
