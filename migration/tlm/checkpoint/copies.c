/*
 * TLM checkpoint: copies of the pages that are owed when the guest is paused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/stats64.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "copies.h"
#include "crew.h"
#include "room.h"

/*
 * What a thread of the crew does at once: less than a millisecond of copying,
 * as the others wait for the last one, which may have lost its host CPU.  With
 * a tenth of it, a search of 1 TiB would take longer than the log's sync.
 */
#define PART_BYTES  (4 * MiB)
/* Copied to learn how fast that goes; less does not tell */
#define TRIAL_BYTES (64 * MiB)
#define TRIAL_MIN   (4 * MiB)

struct TlmCopies {
    TlmEngine *engine;
    unsigned page_bits;
    unsigned long part_pages;
    unsigned nr_blocks;
    RAMBlock *guest;            /* the blocks as they were, */
    RAMBlock *copy;             /* and with the copies in place of host */
    TlmRoom *room;
    TlmCrew *crew;
    Stat64 bytes;
    bool trial;
    double rate;                /* bytes/ms */
    unsigned sent_block;        /* what is before it has been sent, */
    unsigned long sent_page;    /* and given back */
};

TlmCopies *tlm_copies_new(const TlmGuestRam *ram, uint64_t limit,
                          GError **why)
{
    TlmCopies *c;
    TlmRoom *room = tlm_room_new(ram, limit, why);

    if (!room) {
        return NULL;
    }
    c = g_new0(TlmCopies, 1);
    c->engine = ram->engine;
    c->page_bits = ram->page_bits;
    c->part_pages = PART_BYTES >> ram->page_bits;
    c->room = room;
    c->crew = tlm_crew_new();
    c->nr_blocks = ram->blocks->len;
    c->guest = g_new(RAMBlock, c->nr_blocks);
    c->copy = g_new(RAMBlock, c->nr_blocks);
    for (unsigned i = 0; i < c->nr_blocks; i++) {
        const RAMBlock *rb = g_ptr_array_index(ram->blocks, i);

        c->guest[i] = c->copy[i] = *rb;
        c->copy[i].host = tlm_room_host(room, i);
    }
    return c;
}

uint64_t tlm_copies_capacity(const TlmCopies *c)
{
    return tlm_room_capacity(c->room);
}

void tlm_copies_expect(TlmCopies *c)
{
    tlm_room_expect(c->room);
}

void tlm_copies_copy_to(TlmCopies *c, RAMBlock *to, unsigned block,
                        unsigned long first, unsigned long num)
{
    uint64_t offset = (uint64_t)first << c->page_bits;
    uint64_t len = (uint64_t)num << c->page_bits;

    memcpy(to->host + offset, c->guest[block].host + offset, len);
    stat64_add(&c->bytes, len);
}

void tlm_copies_copy(TlmCopies *c, unsigned block, unsigned long first,
                     unsigned long num)
{
    tlm_room_fault_in(c->room, block, first, num);
    tlm_copies_copy_to(c, &c->copy[block], block, first, num);
}

uint64_t tlm_copies_limit(const TlmCopies *c)
{
    return tlm_room_limit(c->room);
}

void tlm_copies_share_limit(TlmCopies *c, int64_t bytes)
{
    tlm_room_share_limit(c->room, bytes);
}

const RAMBlock *tlm_copies_guest(const TlmCopies *c, unsigned i)
{
    return &c->guest[i];
}

static unsigned long block_parts(const TlmCopies *c, unsigned block)
{
    return DIV_ROUND_UP(tlm_engine_block_pages(c->engine, block),
                        c->part_pages);
}

typedef struct Share {
    TlmCopies *c;
    void (*work)(void *opaque, unsigned block, unsigned long first,
                 unsigned long end);
    void *opaque;
} Share;

static void share_part(void *opaque, unsigned long part)
{
    const Share *s = opaque;
    unsigned block = 0;
    unsigned long first;

    while (part >= block_parts(s->c, block)) {
        part -= block_parts(s->c, block);
        block++;
    }
    first = part * s->c->part_pages;
    s->work(s->opaque, block, first,
            MIN(first + s->c->part_pages,
                tlm_engine_block_pages(s->c->engine, block)));
}

void tlm_copies_share(TlmCopies *c, void (*work)(void *opaque, unsigned block,
                                                 unsigned long first,
                                                 unsigned long end),
                      void *opaque)
{
    Share share = { c, work, opaque };
    unsigned long parts = 0;

    for (unsigned i = 0; i < c->nr_blocks; i++) {
        parts += block_parts(c, i);
    }
    tlm_crew_do(c->crew, parts, share_part, &share);
}

static void copy_owed(void *opaque, unsigned block, unsigned long first,
                      unsigned long end)
{
    TlmCopies *c = opaque;
    unsigned long num;

    while ((num = tlm_engine_next(c->engine, TLM_TAKE_ALL, block, &first,
                                  end))) {
        if (c->trial && stat64_get(&c->bytes) >= TRIAL_BYTES) {
            return;
        }
        tlm_copies_copy(c, block, first, num);
        first += num;
    }
}

/* The guest writes meanwhile: all of it will be copied once more */
static void try_rate(TlmCopies *c)
{
    int64_t ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    c->trial = true;
    tlm_copies_share(c, copy_owed, c);
    c->trial = false;
    ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - ns;
    c->rate = stat64_get(&c->bytes) < TRIAL_MIN ? 0 :
              (double)stat64_get(&c->bytes) * SCALE_MS / MAX(ns, 1);
    stat64_set(&c->bytes, 0);
}

bool tlm_copies_prepare(TlmCopies *c, GError **why)
{
    if (!tlm_room_make(c->room, why)) {
        return false;
    }
    try_rate(c);
    return true;
}

bool tlm_copies_allowed(TlmCopies *c, GError **why)
{
    return tlm_room_allows(c->room, why);
}

double tlm_copies_rate(const TlmCopies *c)
{
    return c->rate;
}

bool tlm_copies_fit(const TlmCopies *c, GError **why)
{
    return tlm_room_fits(c->room, why);
}

void tlm_copies_take(TlmCopies *c)
{
    tlm_copies_share(c, copy_owed, c);
}

RAMBlock *tlm_copies_block(const TlmCopies *c, unsigned i)
{
    return &c->copy[i];
}

uint64_t tlm_copies_bytes(TlmCopies *c)
{
    return stat64_get(&c->bytes);
}

/*
 * The pages that are owed go in ascending order, and the flush was the end of
 * all that were taken: what is before the first one that is still owed has
 * been sent.
 */
void tlm_copies_release(TlmCopies *c)
{
    while (c->sent_block < c->nr_blocks) {
        unsigned long pages = tlm_engine_block_pages(c->engine,
                                                     c->sent_block);
        unsigned long first = c->sent_page;

        tlm_engine_next(c->engine, TLM_TAKE_ALL, c->sent_block, &first,
                        pages);
        tlm_room_give_back(c->room, c->sent_block, c->sent_page,
                           first - c->sent_page);
        if (first < pages) {
            /* The rest of a huge page is given back with it */
            c->sent_page = ROUND_DOWN(first, c->part_pages);
            return;
        }
        c->sent_block++;
        c->sent_page = 0;
    }
}

void tlm_copies_free(TlmCopies *c)
{
    if (!c) {
        return;
    }
    tlm_crew_free(c->crew);
    tlm_room_free(c->room);
    g_free(c->guest);
    g_free(c->copy);
    g_free(c);
}
