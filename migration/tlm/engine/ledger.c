/*
 * TLM ledger: which page is owed to the destination, and who sends it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "ledger.h"

#define WORD_BITS (sizeof(unsigned long) * 8)
#define WORDS(bits) (((bits) + WORD_BITS - 1) / WORD_BITS)

/* Bits of word @w that belong to the block */
static unsigned long word_mask(const TlmLedgerBlock *b, unsigned long w)
{
    unsigned long left = b->pages - w * WORD_BITS;

    return left >= WORD_BITS ? ~0UL : (1UL << left) - 1;
}

static bool bit_test(const unsigned long *map, unsigned long nr)
{
    return map[nr / WORD_BITS] & (1UL << (nr % WORD_BITS));
}

unsigned long tlm_ledger_chunks(const TlmLedgerBlock *b)
{
    return (b->pages + b->chunk_pages - 1) / b->chunk_pages;
}

bool tlm_ledger_block_init(TlmLedgerBlock *b, unsigned long *dirty,
                           unsigned long pages, unsigned long chunk_pages)
{
    unsigned long words = WORDS(pages);

    g_assert(chunk_pages >= WORD_BITS &&
             (chunk_pages & (chunk_pages - 1)) == 0);

    b->dirty = dirty;
    b->pages = pages;
    b->chunk_pages = chunk_pages;
    /* One more, as an allocation of 0 bytes is NULL, too */
    b->unsent = g_try_new0(unsigned long, words + 1);
    b->settled = g_try_new0(unsigned long, words + 1);
    b->carried = g_try_new0(unsigned long, words + 1);
    b->armed = g_try_new0(unsigned long, WORDS(tlm_ledger_chunks(b)) + 1);
    if (!b->unsent || !b->settled || !b->carried || !b->armed) {
        tlm_ledger_block_destroy(b);
        return false;
    }

    for (unsigned long w = 0; w < words; w++) {
        b->unsent[w] = dirty[w] & word_mask(b, w);
        /* A page that is not owed is discarded (virtio-mem): it is forgotten */
        b->settled[w] = ~dirty[w] & word_mask(b, w);
        dirty[w] = 0;
    }
    return true;
}

void tlm_ledger_block_destroy(TlmLedgerBlock *b)
{
    g_clear_pointer(&b->unsent, g_free);
    g_clear_pointer(&b->settled, g_free);
    g_clear_pointer(&b->carried, g_free);
    g_clear_pointer(&b->armed, g_free);
}

uint64_t tlm_ledger_revive(TlmLedgerBlock *b)
{
    uint64_t num = 0;

    for (unsigned long w = 0; w < WORDS(b->pages); w++) {
        unsigned long forgotten = b->settled[w] & ~b->unsent[w] &
                                  ~b->dirty[w] & word_mask(b, w);

        b->settled[w] &= ~forgotten;
        b->unsent[w] |= forgotten;
        num += __builtin_popcountl(forgotten);
    }
    return num;
}

void tlm_ledger_give_back(TlmLedgerBlock *b)
{
    for (unsigned long w = 0; w < WORDS(b->pages); w++) {
        b->dirty[w] = (b->dirty[w] | b->unsent[w]) & word_mask(b, w);
        b->unsent[w] = 0;
        b->settled[w] = 0;
    }
}

uint64_t tlm_ledger_owed(const TlmLedgerBlock *b)
{
    uint64_t num = 0;

    for (unsigned long w = 0; w < WORDS(b->pages); w++) {
        num += __builtin_popcountl((b->dirty[w] | b->unsent[w]) &
                                   word_mask(b, w));
    }
    return num;
}

void tlm_ledger_before_sync(TlmLedgerBlock *b)
{
    size_t size = WORDS(b->pages) * sizeof(unsigned long);

    memcpy(b->carried, b->dirty, size);
    memset(b->dirty, 0, size);
}

void tlm_ledger_after_sync(TlmLedgerBlock *b, bool age,
                           TlmLedgerCounts *counts)
{
    for (unsigned long w = 0; w < WORDS(b->pages); w++) {
        unsigned long fresh = b->dirty[w] & word_mask(b, w);
        unsigned long carried = b->carried[w];
        unsigned long low = b->unsent[w];
        unsigned long high = b->settled[w];
        unsigned long dirty, older, forgotten;

        if (fresh && !tlm_ledger_chunk_armed(b, w * WORD_BITS /
                                                b->chunk_pages)) {
            /* No write to these pages is known; mtx will come by */
            fresh &= carried | ~low;
        }
        dirty = fresh | carried;
        older = age ? carried & ~fresh : 0;
        forgotten = high & ~low & ~carried;

        b->dirty[w] = dirty;
        b->unsent[w] = ((low & ~older) | ((~low | high) & older)) & ~fresh;
        b->settled[w] = ((high | (low & older)) & dirty & ~fresh) |
                        (forgotten & ~fresh);
        b->carried[w] = 0;

        counts->clean_unsent += __builtin_popcountl(b->unsent[w] & ~dirty);
        if (dirty) {
            counts->dirty += __builtin_popcountl(dirty);
            counts->fresh += __builtin_popcountl(fresh);
            counts->revived += __builtin_popcountl(fresh & forgotten);
            counts->hot += __builtin_popcountl(dirty & ~b->settled[w]);
        }
    }
}

bool tlm_ledger_chunk_armed(const TlmLedgerBlock *b, unsigned long chunk)
{
    return bit_test(b->armed, chunk);
}

bool tlm_ledger_chunk_dirty(const TlmLedgerBlock *b, unsigned long chunk)
{
    unsigned long w = chunk * b->chunk_pages / WORD_BITS;
    unsigned long end = MIN(w + b->chunk_pages / WORD_BITS, WORDS(b->pages));

    for (; w < end; w++) {
        if (b->dirty[w]) {
            return true;
        }
    }
    return false;
}

void tlm_ledger_arm_chunk(TlmLedgerBlock *b, unsigned long chunk)
{
    b->armed[chunk / WORD_BITS] |= 1UL << (chunk % WORD_BITS);
}

static unsigned long wanted(const TlmLedgerBlock *b, TlmTake what,
                            unsigned long w)
{
    switch (what) {
    case TLM_TAKE_CLEAN:
        return b->unsent[w] & ~b->dirty[w];
    case TLM_TAKE_SETTLED:
        return b->dirty[w] & b->settled[w];
    case TLM_TAKE_DIRTY:
        return b->dirty[w];
    case TLM_TAKE_ALL:
        return b->dirty[w] | b->unsent[w];
    case TLM_TAKE_HOT:
        return b->dirty[w] & ~b->settled[w];
    }
    g_assert_not_reached();
}

/* The first page from @start on that is of this kind, or is not; else @end */
static unsigned long find(const TlmLedgerBlock *b, TlmTake what,
                          unsigned long start, unsigned long end, bool is)
{
    for (unsigned long w = start / WORD_BITS; w * WORD_BITS < end; w++) {
        unsigned long bits = is ? wanted(b, what, w) : ~wanted(b, what, w);

        if (w == start / WORD_BITS) {
            bits &= ~0UL << start % WORD_BITS;
        }
        if (bits) {
            return MIN(w * WORD_BITS + __builtin_ctzl(bits), end);
        }
    }
    return end;
}

unsigned long tlm_ledger_next(const TlmLedgerBlock *b, TlmTake what,
                              unsigned long *start, unsigned long end)
{
    end = MIN(end, b->pages);
    *start = find(b, what, *start, end, true);
    return *start < end ? find(b, what, *start, end, false) - *start : 0;
}

uint64_t tlm_ledger_runs(const TlmLedgerBlock *b)
{
    uint64_t num = 0;
    unsigned long page = 0, len;

    while ((len = tlm_ledger_next(b, TLM_TAKE_ALL, &page, b->pages))) {
        page += len;
        num++;
    }
    return num;
}

/* Pages from @start to before @end are neither dirty nor unsent */
static void owe(TlmLedgerBlock *b, unsigned long start, unsigned long end)
{
    for (unsigned long page = start; page < end; page++) {
        unsigned long bit = 1UL << (page % WORD_BITS);

        b->settled[page / WORD_BITS] &= ~bit;
        b->unsent[page / WORD_BITS] |= bit;
    }
}

uint64_t tlm_ledger_fill_gaps(TlmLedgerBlock *b, unsigned long gap)
{
    uint64_t num = 0;
    unsigned long page = 0, end = 0, len;

    while ((len = tlm_ledger_next(b, TLM_TAKE_ALL, &page, b->pages))) {
        if (end && page - end <= gap) {
            owe(b, end, page);
            num += page - end;
        }
        end = page + len;
        page = end;
    }
    return num;
}

unsigned tlm_ledger_take(TlmLedgerBlock *b, TlmTake what,
                         unsigned long *cursor, unsigned long end,
                         unsigned long *taken, unsigned max)
{
    unsigned num = 0;

    for (unsigned long w = *cursor / WORD_BITS; w * WORD_BITS < end; w++) {
        unsigned long first = w * WORD_BITS;
        unsigned long bits;

        if (what == TLM_TAKE_CLEAN &&
            !tlm_ledger_chunk_armed(b, first / b->chunk_pages)) {
            *cursor = MAX(*cursor, first);
            return num;
        }

        bits = wanted(b, what, w);
        if (*cursor > first) {
            bits &= ~0UL << (*cursor - first);
        }
        if (end - first < WORD_BITS) {
            bits &= (1UL << (end - first)) - 1;
        }
        while (bits) {
            unsigned long bit = bits & -bits;
            unsigned long page = first + __builtin_ctzl(bits);

            if (num == max) {
                *cursor = page;
                return num;
            }
            b->unsent[w] &= ~bit;
            b->settled[w] &= ~bit;
            b->dirty[w] &= ~bit;
            taken[num++] = page;
            bits &= ~bit;
        }
    }
    *cursor = MAX(*cursor, end);
    return num;
}

static unsigned long forget(TlmLedgerBlock *b, TlmTake what,
                            unsigned long start, unsigned long npages)
{
    unsigned long end = MIN(start + npages, b->pages);
    unsigned long num = 0;

    for (unsigned long w = start / WORD_BITS; w * WORD_BITS < end; w++) {
        unsigned long first = w * WORD_BITS;
        /* During a sync, bits of a carried page are its age */
        unsigned long bits = wanted(b, what, w) & ~b->carried[w];

        if (start > first) {
            bits &= ~0UL << (start - first);
        }
        if (end - first < WORD_BITS) {
            bits &= (1UL << (end - first)) - 1;
        }
        num += __builtin_popcountl(bits);
        b->unsent[w] &= ~bits;
        b->settled[w] |= bits;
        b->dirty[w] &= ~bits;
    }
    return num;
}

unsigned long tlm_ledger_forget(TlmLedgerBlock *b, unsigned long start,
                                unsigned long npages)
{
    return forget(b, TLM_TAKE_ALL, start, npages);
}

unsigned long tlm_ledger_forget_clean(TlmLedgerBlock *b, unsigned long start,
                                      unsigned long npages)
{
    return forget(b, TLM_TAKE_CLEAN, start, npages);
}
