/*
 * TLM: which pages of guest RAM were never populated
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include "populated.h"

#define TMPFS_SUPER_MAGIC 0x01021994    /* linux/magic.h */

/*
 * The ABI of PAGEMAP_SCAN, from linux/fs.h of Linux 6.7: not in the kernel
 * headers of the systems that TLM is built on.
 */
typedef struct ScanRegion {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
} ScanRegion;

typedef struct ScanArg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
} ScanArg;

#define SCAN_IOCTL _IOWR('f', 16, ScanArg)

#define SCAN_IS_PRESENT (1 << 3)
#define SCAN_IS_SWAPPED (1 << 4)
#define SCAN_IS_PFNZERO (1 << 5)

#define SCAN_REGIONS 512

/* An entry of pagemap: Documentation/admin-guide/mm/pagemap.rst of Linux */
#define ENTRY_PRESENT (1ULL << 63)
#define ENTRY_SWAPPED (1ULL << 62)

/*
 * As much as a page table of the last level maps, or less: on s390x it is
 * 1 MiB, elsewhere 2 MiB or more.  See read_entries().
 */
#define READ_SPAN MiB

/* Reading a hole of shared memory: it stays in the CPU's caches */
#define READ_BYTES ((size_t)(64 * KiB))

/* Joins what is adjacent, so that @found is called once for it */
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

static void run_add(Run *run, uint64_t start, uint64_t end)
{
    if (start != run->end) {
        run_end(run);
        run->start = start;
    }
    run->end = end;
}

bool tlm_populated_open(TlmPopulated *p, uint64_t page_size)
{
    p->page_size = page_size;
    p->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    p->can_scan = true;
    return p->pagemap >= 0;
}

void tlm_populated_close(TlmPopulated *p)
{
    if (p->pagemap >= 0) {
        close(p->pagemap);
        p->pagemap = -1;
    }
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

/* Returns 0 or a negative errno: -ENOTTY if the kernel cannot do it */
static int scan(int pagemap, uint64_t base, uint64_t end, Run *run)
{
    g_autofree ScanRegion *vec = g_new(ScanRegion, SCAN_REGIONS);
    uint64_t at = base;

    while (at < end) {
        /*
         * No category is asked for, so that every page is in a region, the
         * ones that were never populated too: what a failure leaves out is
         * then not taken for zero.
         */
        ScanArg arg = {
            .size = sizeof(arg),
            .start = at,
            .end = end,
            .vec = (uintptr_t)vec,
            .vec_len = SCAN_REGIONS,
            .return_mask = SCAN_IS_PRESENT | SCAN_IS_SWAPPED |
                           SCAN_IS_PFNZERO,
        };
        int num = RETRY_ON_EINTR(ioctl(pagemap, SCAN_IOCTL, &arg));

        if (num < 0) {
            return errno == EINVAL && at == base ? -ENOTTY : -errno;
        }
        for (int i = 0; i < num; i++) {
            /* walk_end is not always where the last region ends */
            uint64_t from = MAX(vec[i].start, at);
            uint64_t to = MIN(vec[i].end, arg.walk_end);

            if (from < to && (vec[i].categories == 0 ||
                              vec[i].categories == (SCAN_IS_PRESENT |
                                                    SCAN_IS_PFNZERO))) {
                run_add(run, from, to);
            }
        }
        if (arg.walk_end <= at) {
            return -EIO;
        }
        at = arg.walk_end;
    }
    return 0;
}

/*
 * Before Linux 6.5 pagemap leaves the entries of a page table out if the
 * table comes or goes at this moment, and has the entries behind them in
 * their place: the answer is as long as it was to be, and is about other
 * pages.  (A huge page that is discarded, or a huge page of zeros that is
 * written to, does that.)  So it is asked for pages of one table only: if
 * they are left out they are all zero, and what stands in their place does
 * no harm.
 */
static int read_entries(const TlmPopulated *p, uint64_t base, uint64_t end,
                        Run *run)
{
    uint64_t page = p->page_size;
    g_autofree uint64_t *entry = g_new(uint64_t, READ_SPAN / page);

    for (uint64_t at = base; at < end; ) {
        uint64_t to = MIN(QEMU_ALIGN_DOWN(at, READ_SPAN) + READ_SPAN, end);
        ssize_t want = (to - at) / page * sizeof(*entry);
        ssize_t got = RETRY_ON_EINTR(pread(p->pagemap, entry, want,
                                           at / page * sizeof(*entry)));

        if (got != want) {
            return got < 0 ? -errno : -EIO;
        }
        for (uint64_t i = 0; at < to; i++, at += page) {
            if (!(entry[i] & (ENTRY_PRESENT | ENTRY_SWAPPED))) {
                run_add(run, at, at + page);
            }
        }
    }
    return 0;
}

bool tlm_populated_anon(TlmPopulated *p, const void *host, uint64_t len,
                        TlmZeroRun *found, void *opaque)
{
    uint64_t base = (uintptr_t)host;
    uint64_t end = base + QEMU_ALIGN_DOWN(len, p->page_size);
    Run run = { .found = found, .opaque = opaque, .base = base };
    int ret = -ENOTTY;

    if (p->can_scan) {
        ret = scan(p->pagemap, base, end, &run);
        p->can_scan = ret != -ENOTTY;
    }
    if (!p->can_scan) {
        ret = read_entries(p, base, end, &run);
    }
    run_end(&run);
    return ret == 0;
}

static bool is_tmpfs(int fd)
{
    struct stat st;
    struct statfs fs;

    /* A device node has the magic number of the tmpfs that it lies in */
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
           RETRY_ON_EINTR(fstatfs(fd, &fs)) == 0 &&
           fs.f_type == TMPFS_SUPER_MAGIC;
}

static bool is_zero(const uint8_t *mem, size_t len)
{
    return mem[0] == 0 && memcmp(mem, mem + 1, len - 1) == 0;
}

/*
 * What of [@at, @end) is read as zero.  Unlike lseek(), pread() waits for
 * the lock of each page that it finds, so that a page is seen as it is
 * while it is moved, collapsed, split or swapped.
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
 * lseek() says where to look, and no more: to it a page that is moved or
 * collapsed at this moment is a hole as well.
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
        /* Has become one since: on, or it may be so for ever */
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
