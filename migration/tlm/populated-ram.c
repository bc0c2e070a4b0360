/*
 * TLM: takes never populated guest RAM off the ledger
 *
 * Such a page is zero at both sides.  docs/devel/migration/tlm/populated.rst
 * says why this is safe, and which RAM is left alone.  In short:
 *
 *   - At the source the page is zero after its dirty log was armed, and
 *     before any page of its chunk was sent: its content was read, or the
 *     page tables say that it has none.  The dirty log reports a later write,
 *     after the write.
 *   - A stock destination leaves a page as it is on the first multifd packet
 *     that says "this page is zero".  Sending no packet leads to the same
 *     RAM, to the last byte.  A user who does not want to rely on this turns
 *     off zero-page-detection.  All pages are sent then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/hostmem.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "engine/populated.h"
#include "guest-ram.h"
#include "trace.h"

typedef enum {
    MEMORY_OTHER,               /* to be read and sent, as ever */
    MEMORY_ANON,
    MEMORY_SHMEM,
} Memory;

typedef struct Skip {
    TlmGuestRam *ram;
    unsigned block;
    unsigned long first;        /* page */
    unsigned long skipped;      /* pages */
} Skip;

/*
 * Only RAM that belongs to a memory backend: RAM of devices and firmware is
 * small, and filled from files at both sides.
 */
static Memory memory_kind(RAMBlock *rb)
{
    if (!object_dynamic_cast(memory_region_owner(rb->mr),
                             TYPE_MEMORY_BACKEND) ||
        rb->page_size != qemu_real_host_page_size() ||
        rb->flags & (RAM_PREALLOC | RAM_GUEST_MEMFD | RAM_NAMED_FILE)) {
        return MEMORY_OTHER;
    }
    if (rb->fd < 0) {
        return rb->flags & RAM_SHARED ? MEMORY_OTHER : MEMORY_ANON;
    }
    /* A private mapping of a file has the file's content */
    return rb->flags & RAM_SHARED ? MEMORY_SHMEM : MEMORY_OTHER;
}

/*
 * A search costs up to some 10 ms a GiB of pages that are not huge.  It is
 * not worth that in a guest that uses all of its memory.
 */
static bool worth_looking(const TlmGuestRam *ram)
{
    uint64_t anon = 0;

    for (unsigned i = 0; i < ram->blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(ram->blocks, i);

        if (memory_kind(rb) == MEMORY_ANON) {
            anon += rb->used_length;
        }
    }
    return tlm_populated_resident(qemu_real_host_page_size()) <
           anon - anon / 16;
}

/*
 * A page that is in the dirty log is dtx's, even if it is zero now.  Only
 * clean pages are forgotten.
 */
static void forget_run(void *opaque, uint64_t start, uint64_t len)
{
    Skip *s = opaque;
    unsigned bits = s->ram->page_bits;
    unsigned long page = s->first + DIV_ROUND_UP(start, 1UL << bits);
    unsigned long end = s->first + ((start + len) >> bits);

    if (page < end) {
        s->skipped += tlm_engine_forget_clean(s->ram->engine, s->block, page,
                                              end - page);
    }
}

void tlm_guest_ram_skip_unpopulated(void *opaque, unsigned block,
                                    unsigned long first, unsigned long num)
{
    TlmGuestRam *ram = opaque;
    RAMBlock *rb = g_ptr_array_index(ram->blocks, block);
    Skip skip = { .ram = ram, .block = block, .first = first };
    uint64_t offset = (uint64_t)first << ram->page_bits;
    uint64_t len = (uint64_t)num << ram->page_bits;
    TlmPagemap pagemap;

    if (migrate_zero_page_detection() != ZERO_PAGE_DETECTION_MULTIFD) {
        return;
    }
    switch (memory_kind(rb)) {
    case MEMORY_ANON:
        if (worth_looking(ram) &&
            tlm_pagemap_open(&pagemap, qemu_real_host_page_size())) {
            tlm_populated_anon(&pagemap, rb->host + offset, len,
                               forget_run, &skip);
            tlm_pagemap_close(&pagemap);
        }
        break;
    case MEMORY_SHMEM:
        tlm_populated_shmem(rb->fd, qemu_real_host_page_size(),
                            rb->fd_offset + offset, len, forget_run, &skip);
        break;
    case MEMORY_OTHER:
        break;
    }
    trace_tlm_skip(rb->idstr, first, num, skip.skipped);
}
