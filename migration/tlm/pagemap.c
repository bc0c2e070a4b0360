/*
 * TLM: asks the kernel's page tables about this process's memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include <sys/ioctl.h>
#include "pagemap.h"

/*
 * The ABI of PAGEMAP_SCAN, from linux/fs.h of Linux 6.7.  The systems that TLM
 * is built on have older kernel headers.
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

bool tlm_pagemap_open(TlmPagemap *p, uint64_t page_size)
{
    p->page_size = page_size;
    p->fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    p->can_scan = true;
    return p->fd >= 0;
}

void tlm_pagemap_close(TlmPagemap *p)
{
    if (p->fd >= 0) {
        close(p->fd);
        p->fd = -1;
    }
}

TlmPagemapState tlm_pagemap_page(const TlmPagemap *p, const void *host)
{
    uint64_t entry;
    uint64_t at = (uintptr_t)host / p->page_size * sizeof(entry);

    if (RETRY_ON_EINTR(pread(p->fd, &entry, sizeof(entry), at)) !=
        sizeof(entry)) {
        return TLM_PAGEMAP_UNKNOWN;
    }
    return entry & ENTRY_PRESENT ? TLM_PAGEMAP_PRESENT :
           entry & ENTRY_SWAPPED ? TLM_PAGEMAP_SWAPPED : TLM_PAGEMAP_ABSENT;
}

/* Returns 0 or a negative errno: -ENOTTY if the kernel cannot do it */
static int scan(const TlmPagemap *p, uint64_t base, uint64_t end,
                TlmPagemapFound *found, void *opaque)
{
    g_autofree ScanRegion *vec = g_new(ScanRegion, SCAN_REGIONS);
    uint64_t at = base;

    while (at < end) {
        /*
         * No category is asked for, so every page is in a region, also
         * pages that were never populated.  So no page is taken for zero
         * because a failure leaves it out.
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
        int num = RETRY_ON_EINTR(ioctl(p->fd, SCAN_IOCTL, &arg));

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
                found(opaque, from, to);
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
 * Before Linux 6.5 pagemap leaves out the entries of a page table that comes
 * or goes at this moment, and has the next entries in their place.  The answer
 * has the right length, but is about other pages.  (This happens to a huge
 * page that is discarded, or to a huge page of zeros that is written to.)  So
 * each question is about pages of one table only.  If their entries are left
 * out, all of these pages are zero, and the other entries do no harm.
 */
static int read_entries(const TlmPagemap *p, uint64_t base, uint64_t end,
                        TlmPagemapFound *found, void *opaque)
{
    uint64_t page = p->page_size;
    g_autofree uint64_t *entry = g_new(uint64_t, READ_SPAN / page);

    for (uint64_t at = base; at < end; ) {
        uint64_t to = MIN(QEMU_ALIGN_DOWN(at, READ_SPAN) + READ_SPAN, end);
        ssize_t want = (to - at) / page * sizeof(*entry);
        ssize_t got = RETRY_ON_EINTR(pread(p->fd, entry, want,
                                           at / page * sizeof(*entry)));

        if (got != want) {
            return got < 0 ? -errno : -EIO;
        }
        for (uint64_t i = 0; at < to; i++, at += page) {
            if (!(entry[i] & (ENTRY_PRESENT | ENTRY_SWAPPED))) {
                found(opaque, at, at + page);
            }
        }
    }
    return 0;
}

bool tlm_pagemap_zero(TlmPagemap *p, uint64_t start, uint64_t end,
                      TlmPagemapFound *found, void *opaque)
{
    int ret = -ENOTTY;

    if (p->can_scan) {
        ret = scan(p, start, end, found, opaque);
        p->can_scan = ret != -ENOTTY;
    }
    if (!p->can_scan) {
        ret = read_entries(p, start, end, found, opaque);
    }
    return ret == 0;
}
