/*
 * Memory for the pages of one virtual machine
 *
 * A chunk is *empty*, *partial* (some slots are free, and no cursor is in it)
 * or *busy* (full, or a cursor has all that is free).  Empty ones have no
 * memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "error.h"
#include "slab.h"

#define WORDS (SLAB_CHUNK_SLOTS / 64)

typedef struct Chunk {
    uint64_t free[WORDS];               /* not in a table, not in a cursor */
    uint16_t num_free;
    bool held;                          /* by a cursor */
} Chunk;

struct Slab {
    gatomicrefcount users;
    GMutex lock;                        /* all below but the pages */
    Budget *budget;
    uint8_t *pages;
    uint16_t *refs;                     /* of each slot */
    Chunk *chunks;
    uint32_t num_chunks;
    uint32_t used;                      /* chunks that are not empty */
    GArray *empty;                      /* uint32_t: have been used before */
    uint32_t fresh;                     /* from here on: never used */
    GArray *partial;                    /* uint32_t: may be out of date */
};

static void slab_free(Slab *s);

static void *reserve(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static uint8_t *reserve_pages(Slab *s)
{
    size_t size = s->num_chunks * SLAB_CHUNK_SIZE;
    uint8_t *raw = reserve(size + SLAB_CHUNK_SIZE), *p;
    size_t head;

    if (!raw) {
        return NULL;
    }
    p = (uint8_t *)(((uintptr_t)raw + SLAB_CHUNK_SIZE - 1) &
                    -(uintptr_t)SLAB_CHUNK_SIZE);
    head = p - raw;
    if (head) {
        munmap(raw, head);
    }
    munmap(p + size, SLAB_CHUNK_SIZE - head);
    /* One page fault for each chunk instead of 512; not needed to be right. */
    madvise(p, size, MADV_HUGEPAGE);
    /* Guests' RAM has no place in core dumps. */
    madvise(p, size, MADV_DONTDUMP);
    return p;
}

Slab *slab_new(uint64_t limit, Budget *budget, GError **errp)
{
    uint64_t chunks = limit / SLAB_CHUNK_SIZE;
    Slab *s;

    if (!chunks || chunks > SLAB_MAX_SLOTS / SLAB_CHUNK_SLOTS) {
        ms_fail(errp, "a quota of %" PRIu64 " bytes is not possible", limit);
        return NULL;
    }
    s = g_new0(Slab, 1);
    g_atomic_ref_count_init(&s->users);
    g_mutex_init(&s->lock);
    s->budget = budget;
    s->num_chunks = chunks;
    s->empty = g_array_new(false, false, sizeof(uint32_t));
    s->partial = g_array_new(false, false, sizeof(uint32_t));
    s->pages = reserve_pages(s);
    s->refs = reserve(chunks * SLAB_CHUNK_SLOTS * sizeof(*s->refs));
    s->chunks = reserve(chunks * sizeof(*s->chunks));
    if (!s->pages || !s->refs || !s->chunks) {
        ms_fail(errp, "no address space for %" PRIu64 " bytes: %s", limit,
                g_strerror(errno));
        slab_free(s);
        return NULL;
    }
    return s;
}

static void budget_give_back(Budget *b, uint64_t bytes)
{
    g_mutex_lock(&b->lock);
    b->used -= bytes;
    g_mutex_unlock(&b->lock);
}

static void slab_free(Slab *s)
{
    budget_give_back(s->budget, s->used * SLAB_CHUNK_SIZE);
    if (s->pages) {
        munmap(s->pages, s->num_chunks * SLAB_CHUNK_SIZE);
    }
    if (s->refs) {
        munmap(s->refs, s->num_chunks * SLAB_CHUNK_SLOTS * sizeof(*s->refs));
    }
    if (s->chunks) {
        munmap(s->chunks, s->num_chunks * sizeof(*s->chunks));
    }
    g_array_unref(s->empty);
    g_array_unref(s->partial);
    g_mutex_clear(&s->lock);
    g_free(s);
}

Slab *slab_use(Slab *s)
{
    g_atomic_ref_count_inc(&s->users);
    return s;
}

void slab_leave(Slab *s)
{
    if (s && g_atomic_ref_count_dec(&s->users)) {
        slab_free(s);
    }
}

static bool budget_take(Budget *b, uint64_t bytes)
{
    bool ok;

    g_mutex_lock(&b->lock);
    ok = bytes <= b->limit - b->used;
    if (ok) {
        b->used += bytes;
    }
    g_mutex_unlock(&b->lock);
    return ok;
}

/* A chunk with free slots; called with the lock. */
static bool find_chunk(Slab *s, uint32_t *chunk, GError **errp)
{
    while (s->partial->len) {
        *chunk = g_array_index(s->partial, uint32_t, s->partial->len - 1);
        g_array_set_size(s->partial, s->partial->len - 1);
        /* It may have become empty, or full by another cursor. */
        if (s->chunks[*chunk].num_free && !s->chunks[*chunk].held &&
            s->chunks[*chunk].num_free < SLAB_CHUNK_SLOTS) {
            return true;
        }
    }
    if (!s->empty->len && s->fresh == s->num_chunks) {
        return ms_fail(errp, "the virtual machine's quota of %" PRIu64
                       " MiB is used up", s->num_chunks * SLAB_CHUNK_SIZE >> 20);
    }
    if (!budget_take(s->budget, SLAB_CHUNK_SIZE)) {
        return ms_fail(errp, "the server's memory of %" PRIu64
                       " MiB is used up", s->budget->limit >> 20);
    }
    if (!s->empty->len) {
        *chunk = s->fresh++;
    } else {
        *chunk = g_array_index(s->empty, uint32_t, s->empty->len - 1);
        g_array_set_size(s->empty, s->empty->len - 1);
    }
    memset(s->chunks[*chunk].free, 0xff, sizeof(s->chunks[*chunk].free));
    s->chunks[*chunk].num_free = SLAB_CHUNK_SLOTS;
    s->used++;
    return true;
}

static bool cursor_open(Slab *s, SlabCursor *c, GError **errp)
{
    bool ok;

    g_mutex_lock(&s->lock);
    ok = find_chunk(s, &c->chunk, errp);
    if (ok) {
        Chunk *chunk = &s->chunks[c->chunk];

        memcpy(c->left, chunk->free, sizeof(c->left));
        memset(chunk->free, 0, sizeof(chunk->free));
        chunk->num_free = 0;
        chunk->held = true;
        c->open = true;
    }
    g_mutex_unlock(&s->lock);
    return ok;
}

bool slab_take(Slab *s, SlabCursor *c, uint32_t *slot, GError **errp)
{
    for (;;) {
        for (unsigned i = 0; c->open && i < WORDS; i++) {
            if (c->left[i]) {
                unsigned bit = __builtin_ctzll(c->left[i]);

                c->left[i] &= c->left[i] - 1;
                *slot = c->chunk * SLAB_CHUNK_SLOTS + i * 64 + bit;
                /* Nobody else knows the slot. */
                s->refs[*slot] = 1;
                return true;
            }
        }
        slab_close(s, c);
        if (!cursor_open(s, c, errp)) {
            return false;
        }
    }
}

/* After slots of the chunk have become free; called with the lock. */
static void settle(Slab *s, uint32_t number)
{
    Chunk *c = &s->chunks[number];

    if (c->held || !c->num_free) {
        return;
    }
    if (c->num_free < SLAB_CHUNK_SLOTS) {
        g_array_append_val(s->partial, number);
        return;
    }
    madvise(s->pages + number * SLAB_CHUNK_SIZE, SLAB_CHUNK_SIZE,
            MADV_DONTNEED);
    g_array_append_val(s->empty, number);
    s->used--;
    budget_give_back(s->budget, SLAB_CHUNK_SIZE);
}

void slab_close(Slab *s, SlabCursor *c)
{
    Chunk *chunk;

    if (!c->open) {
        return;
    }
    g_mutex_lock(&s->lock);
    chunk = &s->chunks[c->chunk];
    for (unsigned i = 0; i < WORDS; i++) {
        chunk->free[i] |= c->left[i];
        chunk->num_free += __builtin_popcountll(c->left[i]);
    }
    chunk->held = false;
    settle(s, c->chunk);
    c->open = false;
    g_mutex_unlock(&s->lock);
}

bool slab_ref(Slab *s, const uint32_t *slots, size_t count, GError **errp)
{
    size_t i;

    g_mutex_lock(&s->lock);
    for (i = 0; i < count && s->refs[slots[i]] < UINT16_MAX; i++) {
        s->refs[slots[i]]++;
    }
    g_mutex_unlock(&s->lock);
    if (i < count) {
        slab_unref(s, slots, i);
        return ms_fail(errp, "too many generations share a page");
    }
    return true;
}

void slab_unref(Slab *s, const uint32_t *slots, size_t count)
{
    g_mutex_lock(&s->lock);
    for (size_t i = 0; i < count; i++) {
        uint32_t number = slots[i] / SLAB_CHUNK_SLOTS;
        unsigned in = slots[i] % SLAB_CHUNK_SLOTS;
        Chunk *c = &s->chunks[number];

        g_assert(s->refs[slots[i]]);
        if (--s->refs[slots[i]]) {
            continue;
        }
        c->free[in / 64] |= 1ull << (in % 64);
        c->num_free++;
        /* It is in the list of partial ones since its first. */
        if (c->num_free == 1 || c->num_free == SLAB_CHUNK_SLOTS) {
            settle(s, number);
        }
    }
    g_mutex_unlock(&s->lock);
}

void *slab_page(const Slab *s, uint32_t slot)
{
    return s->pages + (uint64_t)slot * PAGE_SIZE;
}

uint64_t slab_used(Slab *s)
{
    uint64_t used;

    g_mutex_lock(&s->lock);
    used = s->used * SLAB_CHUNK_SIZE;
    g_mutex_unlock(&s->lock);
    return used;
}
