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
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "exec/memory.h"
#include "system/hostmem.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "internal.h"
#include "engine/populated.h"
#include "trace.h"

typedef enum {
    MEMORY_OTHER,               /* to be read and sent, as ever */
    MEMORY_ANON,
    MEMORY_SHMEM,
} Memory;

typedef struct Skip {
    TlmLedgerBlock *ledger;
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
static bool worth_looking(void)
{
    uint64_t anon = 0;

    for (unsigned i = 0; i < tlm.nr_blocks; i++) {
        if (memory_kind(tlm.blocks[i].rb) == MEMORY_ANON) {
            anon += tlm.blocks[i].rb->used_length;
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
    unsigned long *dirty = s->ledger->dirty;
    unsigned long page, end, num = 0;

    page = s->first + DIV_ROUND_UP(start, 1UL << tlm.page_bits);
    end = s->first + ((start + len) >> tlm.page_bits);

    QEMU_LOCK_GUARD(ram_bitmap_mutex());

    while (page < end) {
        unsigned long next = find_next_bit(dirty, end, page);

        num += tlm_ledger_forget(s->ledger, page, next - page);
        page = next < end ? find_next_zero_bit(dirty, end, next) : end;
    }
    s->skipped += num;
    tlm_owe_less(num);
    stat64_add(&tlm.forgotten_pages, num);
}

unsigned long tlm_skip_unpopulated(TlmBlock *b, unsigned long start,
                                   unsigned long npages)
{
    Skip skip = { .ledger = &b->ledger, .first = start };
    uint64_t offset = (uint64_t)start << tlm.page_bits;
    uint64_t len = (uint64_t)npages << tlm.page_bits;
    TlmPopulated populated;

    if (migrate_zero_page_detection() != ZERO_PAGE_DETECTION_MULTIFD) {
        return 0;
    }
    switch (memory_kind(b->rb)) {
    case MEMORY_ANON:
        if (worth_looking() &&
            tlm_populated_open(&populated, qemu_real_host_page_size())) {
            tlm_populated_anon(&populated, b->rb->host + offset, len,
                               forget_run, &skip);
            tlm_populated_close(&populated);
        }
        break;
    case MEMORY_SHMEM:
        tlm_populated_shmem(b->rb->fd, qemu_real_host_page_size(),
                            b->rb->fd_offset + offset, len, forget_run, &skip);
        break;
    case MEMORY_OTHER:
        break;
    }
    trace_tlm_skip(b->rb->idstr, start, npages, skip.skipped);
    return skip.skipped;
}
