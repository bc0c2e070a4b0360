/*
 * TLM: finds pages of guest RAM that were never populated
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include <sys/vfs.h>
#include "populated.h"

#define TMPFS_SUPER_MAGIC 0x01021994    /* linux/magic.h */

/* Size of reads from holes of shared memory: fits in the CPU's caches */
#define READ_BYTES ((size_t)(64 * KiB))

/* Joins adjacent ranges, so that @found is called once for them */
typedef struct Run {
    TlmZeroRun *found;
    void *opaque;
    uint64_t base;              /* where the range that was asked for begins */
    uint64_t start;
    uint64_t end;
} Run;

static void run_end(Run *run)
{
    if (run->end > run->start) {
        run->found(run->opaque, run->start - run->base,
                   run->end - run->start);
    }
}

/* @opaque: a Run */
static void run_add(void *opaque, uint64_t start, uint64_t end)
{
    Run *run = opaque;

    if (start != run->end) {
        run_end(run);
        run->start = start;
    }
    run->end = end;
}

uint64_t tlm_populated_resident(uint64_t page_size)
{
    g_autofree char *text = NULL;
    uint64_t resident, shared;

    if (!g_file_get_contents("/proc/self/statm", &text, NULL, NULL) ||
        sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2 ||
        resident < shared) {
        return 0;
    }
    return (resident - shared) * page_size;
}

bool tlm_populated_anon(TlmPagemap *p, const void *host, uint64_t len,
                        TlmZeroRun *found, void *opaque)
{
    uint64_t base = (uintptr_t)host;
    Run run = { .found = found, .opaque = opaque, .base = base };
    bool ret = tlm_pagemap_zero(p, base,
                                base + QEMU_ALIGN_DOWN(len, p->page_size),
                                run_add, &run);

    run_end(&run);
    return ret;
}

static bool is_tmpfs(int fd)
{
    struct stat st;
    struct statfs fs;

    /* A device node has the magic number of the tmpfs around it */
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
           RETRY_ON_EINTR(fstatfs(fd, &fs)) == 0 &&
           fs.f_type == TMPFS_SUPER_MAGIC;
}

static bool is_zero(const uint8_t *mem, size_t len)
{
    return mem[0] == 0 && memcmp(mem, mem + 1, len - 1) == 0;
}

/*
 * Reports the part of [@at, @end) that reads as zero.  Unlike lseek(), pread()
 * waits for the lock of each page that it finds.  So it sees the content of a
 * page that is moved, collapsed, split or swapped.
 */
static bool read_hole(int fd, size_t page, uint64_t at, uint64_t end, Run *run)
{
    const size_t size = MAX(READ_BYTES, page);
    g_autofree uint8_t *buf = g_malloc(size);

    while (at < end) {
        size_t want = MIN(end - at, size);
        ssize_t got = RETRY_ON_EINTR(pread(fd, buf, want, at));

        if (got < 0 || (size_t)got < want) {
            return false;
        }
        for (size_t i = 0; i < want; i += page) {
            size_t len = MIN(page, want - i);

            if (is_zero(buf + i, len)) {
                run_add(run, at + i, at + i + len);
            }
        }
        at += want;
    }
    return true;
}

/*
 * lseek() only says where to look: it also calls a page a hole that is moved
 * or collapsed at this moment.
 */
static bool read_holes(int fd, size_t page, int64_t at, int64_t end, Run *run)
{
    while (at < end) {
        int64_t data = lseek(fd, at, SEEK_DATA);
        int64_t hole;

        if (data < 0 && errno == ENXIO) {
            /* No data from here on: a hole up to the end of the file */
            data = lseek(fd, 0, SEEK_END);
        }
        if (data < at || !read_hole(fd, page, at, MIN(data, end), run)) {
            return false;
        }
        if (data >= end) {
            return true;
        }
        hole = lseek(fd, data, SEEK_HOLE);
        if (hole < data) {
            return false;
        }
        /* It has become a hole since: go on, or this may never end */
        at = MAX(hole, data + (int64_t)page);
    }
    return true;
}

bool tlm_populated_shmem(int fd, uint64_t page_size, uint64_t offset,
                         uint64_t len, TlmZeroRun *found, void *opaque)
{
    Run run = { .found = found, .opaque = opaque, .base = offset };
    bool ret = is_tmpfs(fd) &&
               read_holes(fd, page_size, offset, offset + len, &run);

    run_end(&run);
    return ret;
}
