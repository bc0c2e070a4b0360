/*
 * TLM checkpoint: how much memory QEMU may still take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "memory-left.h"

#define CGROUP_ROOT "/sys/fs/cgroup"

static uint64_t host_left(void)
{
    static const char name[] = "MemAvailable:";
    g_autofree char *text = NULL;
    const char *at;

    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL)) {
        return UINT64_MAX;
    }
    at = strstr(text, name);
    return at ? g_ascii_strtoull(at + sizeof(name) - 1, NULL, 10) * KiB
              : UINT64_MAX;
}

/* "max", or what cannot be read: UINT64_MAX */
static uint64_t read_bytes(const char *dir, const char *file)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL) ||
        !g_ascii_isdigit(text[0])) {
        return UINT64_MAX;
    }
    return g_ascii_strtoull(text, NULL, 10);
}

uint64_t tlm_memory_left(void)
{
    g_autofree char *text = NULL;
    g_autofree char *dir = NULL;
    uint64_t left = host_left();
    char *at;

    if (!g_file_get_contents("/proc/self/cgroup", &text, NULL, NULL)) {
        return left;
    }
    at = strstr(text, "0::/");
    if (!at || (at > text && at[-1] != '\n')) {
        return left;
    }
    at += strlen("0::");
    at[strcspn(at, "\n")] = '\0';
    /* The limit of each cgroup up to the root holds */
    dir = g_strconcat(CGROUP_ROOT, at, NULL);
    while (g_str_has_prefix(dir, CGROUP_ROOT "/")) {
        uint64_t max = read_bytes(dir, "memory.max");
        uint64_t used = read_bytes(dir, "memory.current");
        char *slash = strrchr(dir, '/');

        if (max != UINT64_MAX && used != UINT64_MAX) {
            left = MIN(left, max - MIN(used, max));
        }
        *slash = '\0';
    }
    return left;
}
