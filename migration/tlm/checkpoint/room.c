/*
 * TLM checkpoint: memory for copies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/madvise.h"
#include "qemu/stats64.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "memory-left.h"
#include "room.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23      /* Linux 5.14 */
#endif

/* A huge page of the host.  One is used if half of it is wanted. */
#define SLAB_BYTES  (2 * MiB)
/*
 * Faulted in as a huge page, a slab costs a third of what it costs as small
 * ones; but five times as much where the host is a VM itself and has given its
 * free huge pages back.  So both are tried, again each so many slabs, and the
 * average looks back as far.
 */
#define TRY_SLABS   32
/*
 * Each run of huge pages costs two mappings, of which a process may have
 * 65530.
 */
#define RUNS_MAX    8192
/*
 * More may be owed in the pause than was before it, as the guest goes on: one
 * part in so many must be left.  It is faulted in during the pause.
 */
#define GROWTH_PART 4
/* To be left to others on the host */
#define KEEP_FREE   (64 * MiB)

typedef struct Cost {
    int64_t ns;
    uint64_t bytes;
} Cost;

typedef struct RoomBlock {
    void *map;                  /* with a slab more, to align it */
    uint8_t *host;
    uint64_t len;
    unsigned long pages;
    unsigned long *wanted;
    unsigned long *there;       /* has memory */
} RoomBlock;

struct TlmRoom {
    TlmEngine *engine;
    unsigned page_bits;
    unsigned long slab_pages;
    uint64_t limit;
    uint64_t capacity;          /* bytes that may be owed */
    unsigned nr_blocks;
    RoomBlock *block;
    Stat64 taken;               /* bytes */
    bool no_memory;             /* (atomic) */

    QemuThread thread;
    QemuMutex lock;             /* protects these: */
    QemuCond wake, done;
    bool working;
    bool quit;                  /* (atomic as well) */
    /* The thread's, and the bitmaps, while it is working: */
    unsigned runs;              /* of huge pages */
    uint8_t *run_end;           /* where the last one ends */
    unsigned slabs;             /* that might have been huge */
    Cost huge, small;
    uint64_t allowed;           /* bytes that may be taken */
    bool full;                  /* something did not fit into that */
};

/* Address space: no memory yet, even if all of QEMU's is to be locked */
static void *reserve(size_t len)
{
    void *p = mmap(NULL, len, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        return NULL;
    }
    if (munlock(p, len) || mprotect(p, len, PROT_READ | PROT_WRITE)) {
        munmap(p, len);
        return NULL;
    }
    qemu_madvise(p, len, QEMU_MADV_DONTDUMP);
    qemu_madvise(p, len, QEMU_MADV_DONTFORK);
    /* Only where we say so: else more is taken than is counted */
    qemu_madvise(p, len, QEMU_MADV_NOHUGEPAGE);
    return p;
}

static void populate(TlmRoom *r, uint8_t *from, uint64_t len)
{
    if (!madvise(from, len, MADV_POPULATE_WRITE)) {
        return;
    }
    if (errno != EINVAL) {
        qatomic_set(&r->no_memory, true);
        return;
    }
    /* An older kernel */
    for (uint64_t i = 0; i < len; i += qemu_real_host_page_size()) {
        qatomic_set(from + i, 0);
    }
}

static void take(TlmRoom *r, RoomBlock *b, unsigned long first,
                 unsigned long num)
{
    uint8_t *from = b->host + ((uint64_t)first << r->page_bits);
    uint64_t len = (uint64_t)num << r->page_bits;

    bitmap_set(b->there, first, num);
    stat64_add(&r->taken, len);
    /* Host pages may be larger than the guest's */
    len += (uintptr_t)from & ~qemu_real_host_page_mask();
    populate(r, QEMU_ALIGN_PTR_DOWN(from, qemu_real_host_page_size()), len);
}

void tlm_room_fault_in(TlmRoom *r, unsigned block, unsigned long first,
                       unsigned long num)
{
    RoomBlock *b = &r->block[block];
    unsigned long end = first + num, next;

    first = find_next_zero_bit(b->there, end, first);
    while (first < end) {
        next = find_next_bit(b->there, end, first);
        take(r, b, first, next - first);
        first = find_next_zero_bit(b->there, end, next);
    }
}

static void fault_in(TlmRoom *r, RoomBlock *b, unsigned long first,
                     unsigned long num, Cost *cost)
{
    int64_t start_ns = get_clock();

    take(r, b, first, num);
    if (cost->bytes > TRY_SLABS * SLAB_BYTES) {
        cost->ns /= 2;
        cost->bytes /= 2;
    }
    cost->ns += get_clock() - start_ns;
    cost->bytes += (uint64_t)num << r->page_bits;
}

static bool allows(TlmRoom *r, unsigned long pages)
{
    return stat64_get(&r->taken) + ((uint64_t)pages << r->page_bits) <=
           r->allowed;
}

/* Is a huge page worth it? */
static bool dense(const TlmRoom *r, const RoomBlock *b, unsigned long first)
{
    unsigned long end = first + r->slab_pages;

    return end <= b->pages && find_next_bit(b->there, end, first) >= end &&
           bitmap_count_one_with_offset(b->wanted, first, r->slab_pages) >=
           r->slab_pages / 2;
}

static bool huge_is_cheaper(TlmRoom *r)
{
    bool huge = !r->huge.bytes ||
                (r->small.bytes && (double)r->huge.ns * r->small.bytes <=
                                   (double)r->small.ns * r->huge.bytes);

    return r->slabs++ % TRY_SLABS ? huge : !huge;
}

/* A slab as a huge page, if that is of use; returns its pages, or 0 */
static unsigned long make_huge(TlmRoom *r, RoomBlock *b, unsigned long first)
{
    uint8_t *host = b->host + ((uint64_t)first << r->page_bits);

    if (!dense(r, b, first) || !allows(r, r->slab_pages) ||
        r->runs == RUNS_MAX || !huge_is_cheaper(r)) {
        return 0;
    }
    r->runs += host != r->run_end;
    r->run_end = host + SLAB_BYTES;
    qemu_madvise(host, SLAB_BYTES, QEMU_MADV_HUGEPAGE);
    fault_in(r, b, first, r->slab_pages, &r->huge);
    return r->slab_pages;
}

/* ... and as they are wanted, in pages of any size */
static unsigned long make_small(TlmRoom *r, RoomBlock *b, unsigned long from)
{
    unsigned long end = MIN(from + r->slab_pages, b->pages);
    unsigned long first = find_next_bit(b->wanted, end, from);

    while (first < end) {
        unsigned long next = find_next_zero_bit(b->wanted, end, first);

        if (!allows(r, next - first)) {
            r->full = true;
            break;
        }
        fault_in(r, b, first, next - first, &r->small);
        first = find_next_bit(b->wanted, end, next);
    }
    return end - from;
}

static void make_room(TlmRoom *r)
{
    for (unsigned i = 0; i < r->nr_blocks; i++) {
        RoomBlock *b = &r->block[i];
        unsigned long at = 0;

        while (at < b->pages && !qatomic_read(&r->no_memory) &&
               !qatomic_read(&r->quit)) {
            at += make_huge(r, b, at) ?: make_small(r, b, at);
        }
    }
}

static void *room_thread(void *opaque)
{
    TlmRoom *r = opaque;

    QEMU_LOCK_GUARD(&r->lock);
    while (!r->quit) {
        if (!r->working) {
            qemu_cond_wait(&r->wake, &r->lock);
            continue;
        }
        qemu_mutex_unlock(&r->lock);
        make_room(r);
        qemu_mutex_lock(&r->lock);
        r->working = false;
        qemu_cond_signal(&r->done);
    }
    return NULL;
}

/* As it is now; what is owed may grow until the pause */
static uint64_t capacity(uint64_t limit)
{
    uint64_t left = tlm_memory_left("");

    left -= MIN(left, KEEP_FREE);
    return MIN(limit ?: UINT64_MAX, left) / (GROWTH_PART + 1) * GROWTH_PART;
}

TlmRoom *tlm_room_new(const TlmGuestRam *ram, uint64_t limit, GError **why)
{
    TlmRoom *r = g_new0(TlmRoom, 1);

    r->engine = ram->engine;
    r->page_bits = ram->page_bits;
    r->slab_pages = SLAB_BYTES >> ram->page_bits;
    r->limit = limit;
    r->capacity = capacity(limit);
    r->block = g_new0(RoomBlock, ram->blocks->len);
    qemu_mutex_init(&r->lock);
    qemu_cond_init(&r->wake);
    qemu_cond_init(&r->done);
    qemu_thread_create(&r->thread, "mig/src/room", room_thread, r,
                       QEMU_THREAD_JOINABLE);
    for (unsigned i = 0; i < ram->blocks->len; i++) {
        RoomBlock *b = &r->block[i];

        b->pages = tlm_engine_block_pages(ram->engine, i);
        b->len = ((uint64_t)b->pages << r->page_bits) + SLAB_BYTES;
        b->map = reserve(b->len);
        if (!b->map) {
            g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                        "Cannot reserve memory for copies: %s",
                        strerror(errno));
            tlm_room_free(r);
            return NULL;
        }
        b->host = QEMU_ALIGN_PTR_UP(b->map, SLAB_BYTES);
        b->wanted = bitmap_new(b->pages);
        b->there = bitmap_new(b->pages);
        r->nr_blocks++;
    }
    return r;
}

void tlm_room_free(TlmRoom *r)
{
    if (!r) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&r->lock) {
        qatomic_set(&r->quit, true);
        qemu_cond_signal(&r->wake);
    }
    qemu_thread_join(&r->thread);
    for (unsigned i = 0; i < r->nr_blocks; i++) {
        munmap(r->block[i].map, r->block[i].len);
        g_free(r->block[i].wanted);
        g_free(r->block[i].there);
    }
    qemu_cond_destroy(&r->wake);
    qemu_cond_destroy(&r->done);
    qemu_mutex_destroy(&r->lock);
    g_free(r->block);
    g_free(r);
}

uint64_t tlm_room_limit(const TlmRoom *r)
{
    return r->limit ?: UINT64_MAX;
}

void tlm_room_share_limit(TlmRoom *r, int64_t bytes)
{
    stat64_add(&r->taken, bytes);
}

void *tlm_room_host(const TlmRoom *r, unsigned block)
{
    return r->block[block].host;
}

/* The thread is not working: how much may be taken for @owed bytes */
static void allow(TlmRoom *r, uint64_t owed)
{
    uint64_t left = tlm_memory_left("");
    uint64_t keep = KEEP_FREE + owed / GROWTH_PART;

    r->allowed = MIN(r->limit ?: UINT64_MAX,
                     stat64_get(&r->taken) + (left - MIN(left, keep)));
}

/* The same: what is not there of @what is wanted */
static void want(TlmRoom *r, TlmTake what)
{
    allow(r, tlm_engine_owed(r->engine) << r->page_bits);
    r->full = false;
    for (unsigned i = 0; i < r->nr_blocks; i++) {
        RoomBlock *b = &r->block[i];
        unsigned long first = 0, num;

        bitmap_zero(b->wanted, b->pages);
        while ((num = tlm_engine_next(r->engine, what, i, &first, b->pages))) {
            bitmap_set(b->wanted, first, num);
            first += num;
        }
        bitmap_andnot(b->wanted, b->wanted, b->there, b->pages);
    }
    QEMU_LOCK_GUARD(&r->lock);
    r->working = true;
    qemu_cond_signal(&r->wake);
}

uint64_t tlm_room_capacity(const TlmRoom *r)
{
    return r->capacity;
}

void tlm_room_expect(TlmRoom *r)
{
    bool working;

    WITH_QEMU_LOCK_GUARD(&r->lock) {
        working = r->working;
    }
    if (!working) {
        want(r, TLM_TAKE_HOT);
    }
}

static void wait_done(TlmRoom *r)
{
    QEMU_LOCK_GUARD(&r->lock);
    while (r->working) {
        qemu_cond_wait(&r->done, &r->lock);
    }
}

/* The pages that were expected to be owed, and are not */
static void trim(TlmRoom *r)
{
    for (unsigned i = 0; i < r->nr_blocks; i++) {
        unsigned long pages = r->block[i].pages, at = 0, first, num;

        while (at < pages) {
            first = at;
            num = tlm_engine_next(r->engine, TLM_TAKE_ALL, i, &first, pages);
            tlm_room_give_back(r, i, at, first - at);
            at = first + num;
        }
    }
}

static void too_much(const TlmRoom *r, uint64_t owed, GError **why)
{
    if (r->limit && r->allowed == r->limit) {
        g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "%" PRIu64 " bytes are left to be copied, more than the "
                    "buffer may have (%" PRIu64 ")", owed, r->limit);
    } else {
        g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "%" PRIu64 " bytes of memory are wanted for copies, and "
                    "the host, or QEMU's cgroup, has %" PRIu64 " to spare",
                    owed, r->allowed);
    }
}

bool tlm_room_make(TlmRoom *r, GError **why)
{
    uint64_t owed = tlm_engine_owed(r->engine) << r->page_bits;

    wait_done(r);
    want(r, TLM_TAKE_ALL);
    wait_done(r);
    if (r->full) {
        trim(r);
        want(r, TLM_TAKE_ALL);
        wait_done(r);
    }
    if (r->full) {
        too_much(r, owed, why);
    } else if (qatomic_read(&r->no_memory)) {
        g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "There is not enough memory for copies");
    }
    return !r->full && !qatomic_read(&r->no_memory);
}

bool tlm_room_allows(TlmRoom *r, GError **why)
{
    uint64_t owed = tlm_engine_owed(r->engine) << r->page_bits;

    wait_done(r);
    allow(r, owed);
    if (owed > r->allowed) {
        too_much(r, owed, why);
    }
    return owed <= r->allowed;
}

/* What has become owed since the room was made has none */
static uint64_t wanting(const TlmRoom *r)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < r->nr_blocks; i++) {
        const RoomBlock *b = &r->block[i];
        unsigned long first = 0, num;

        while ((num = tlm_engine_next(r->engine, TLM_TAKE_ALL, i, &first,
                                      b->pages))) {
            pages += num - bitmap_count_one_with_offset(b->there, first, num);
            first += num;
        }
    }
    return pages << r->page_bits;
}

bool tlm_room_fits(const TlmRoom *r, GError **why)
{
    uint64_t owed = tlm_engine_owed(r->engine) << r->page_bits;
    uint64_t left = tlm_memory_left("");
    uint64_t more;

    left -= MIN(left, KEEP_FREE);
    if (r->limit) {
        left = MIN(left, r->limit - MIN(r->limit,
                                            stat64_get(&r->taken)));
    }
    /* Mostly there is more than enough: the search can be left out */
    more = owed <= left ? 0 : wanting(r);
    if (more > left) {
        g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "%" PRIu64 " bytes more than foreseen are left to be "
                    "copied, and %" PRIu64 " may be taken", more, left);
        return false;
    }
    return true;
}

void tlm_room_give_back(TlmRoom *r, unsigned block, unsigned long first,
                        unsigned long num)
{
    RoomBlock *b = &r->block[block];
    unsigned long end = first + num;
    uint8_t *host;
    uint64_t len;

    /* A part of a huge page would stay, or split it */
    first = ROUND_UP(first, r->slab_pages);
    end = end == b->pages ? end : ROUND_DOWN(end, r->slab_pages);
    if (first >= end) {
        return;
    }
    num = bitmap_count_one_with_offset(b->there, first, end - first);
    if (num) {
        stat64_add(&r->taken, -((uint64_t)num << r->page_bits));
        bitmap_clear(b->there, first, end - first);
        host = b->host + ((uint64_t)first << r->page_bits);
        len = (uint64_t)(end - first) << r->page_bits;
        qemu_madvise(host, len, QEMU_MADV_DONTNEED);
        qemu_madvise(host, len, QEMU_MADV_NOHUGEPAGE);
    }
}
