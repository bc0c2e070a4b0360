/*
 * TLM: asks the kernel's page tables about this process's memory
 *
 * They are in /proc/self/pagemap.  An absent page of private memory reads as
 * zero, and so does the kernel's page of zeros.  No locks, any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PAGEMAP_H
#define TLM_PAGEMAP_H

typedef struct TlmPagemap {
    int fd;                     /* or -1 */
    bool can_scan;              /* the kernel may have PAGEMAP_SCAN */
    uint64_t page_size;         /* of the host */
} TlmPagemap;

typedef enum {
    TLM_PAGEMAP_UNKNOWN,        /* it cannot be read */
    TLM_PAGEMAP_ABSENT,
    TLM_PAGEMAP_PRESENT,
    TLM_PAGEMAP_SWAPPED,
} TlmPagemapState;

/* From address @start up to @end; several may be adjacent */
typedef void TlmPagemapFound(void *opaque, uint64_t start, uint64_t end);

/* False: there is no such table here, e.g. no /proc */
bool tlm_pagemap_open(TlmPagemap *p, uint64_t page_size);
void tlm_pagemap_close(TlmPagemap *p);

/* The page that @host is in */
TlmPagemapState tlm_pagemap_page(const TlmPagemap *p, const void *host);

/*
 * Reports, in ascending order, which addresses from @start up to @end are
 * absent, or are the kernel's page of zeros.  @start and @end are multiples of
 * the page size, in private anonymous memory.  Returns false if the kernel did
 * not answer for all of the range.
 *
 * Linux 6.7 and later have PAGEMAP_SCAN, which reports the page of zeros.
 * Before that, the entries of pagemap are read, which do not show it.
 */
bool tlm_pagemap_zero(TlmPagemap *p, uint64_t start, uint64_t end,
                      TlmPagemapFound *found, void *opaque);

#endif
