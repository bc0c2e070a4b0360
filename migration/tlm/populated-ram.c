/*
 * TLM: take never populated guest RAM off the ledger
 *
 * Such a page is zero, and the destination's is zero as well.  Why that may
 * be relied on, and what is left alone, is in docs/populated.md; in short:
 *
 *   - The source.  The page is looked at after its dirty log has been
 *     armed, before anything of its chunk was sent, and is zero then: its
 *     content was read, or the page tables say that it has none.  What is
 *     written later is reported by the dirty log, after the write.
 *   - The destination.  To a stock destination the first multifd packet
 *     that says "this page is zero" means: leave it as it is.  Not to send
 *     it leads to the same RAM, to the last byte.  A user who does not want
 *     to rely on that turns off zero-page-detection: then all is sent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/memory.h"
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
 * Only RAM that belongs to a memory backend: what devices and firmware
 * have is small, and filled from files at both sides.
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
    /* A private mapping of a file has what the file has */
    return rb->flags & RAM_SHARED ? MEMORY_SHMEM : MEMORY_OTHER;
}

/*
 * Looking costs up to some 10 ms a GiB of pages that are not huge: not to
 * be spent on a guest that uses all of its memory.
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
 * A page that is in the dirty log is dtx's, whatever it looks like now:
 * only what is clean is forgotten.
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
