/*
 * One generation of a virtual machine's RAM
 *
 * An entry of the table is the number of a slot plus 1, or 0.  Until the
 * generation is sealed, no slot is given back, as another channel of a source
 * that breaks the protocol may be writing to it.  So bit ZERO says that the
 * page is zero although it has a slot, and bit INHERITED that the slot is the
 * parent's: it is never written to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <sys/mman.h>

#include "error.h"
#include "generation.h"

#define ZERO (1u << 31)
#define INHERITED (1u << 30)
#define SLOT (INHERITED - 1)

/* Entries that are counted, freed under one hold of the slab's lock. */
#define BATCH 1024

struct Generation {
    gatomicrefcount refs;
    Layout *layout;
    Slab *slab;
    uint32_t **table;                   /* [block][page] */
    bool sealed;
    uint64_t pages, own_pages;
};

static uint32_t *table_new(uint64_t pages)
{
    void *p = mmap(NULL, pages * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* Starts block @i with the slots of @parent. */
static bool inherit_block(Generation *g, const Generation *parent, unsigned i,
                          GError **errp)
{
    uint64_t pages = layout_pages(g->layout, i), at, done = 0;
    uint32_t batch[BATCH];
    unsigned n = 0;

    for (at = 0; at < pages; at++) {
        if (parent->table[i][at]) {
            batch[n++] = parent->table[i][at] - 1;
        }
        if (n == BATCH || at == pages - 1) {
            if (!slab_ref(g->slab, batch, n, errp)) {
                return false;
            }
            for (; done <= at; done++) {
                uint32_t entry = parent->table[i][done];

                g->table[i][done] = entry ? entry | INHERITED : 0;
            }
            n = 0;
        }
    }
    return true;
}

Generation *generation_new(const Layout *layout, Slab *slab,
                           Generation *parent, GError **errp)
{
    g_autoptr(Generation) g = g_new0(Generation, 1);

    g_atomic_ref_count_init(&g->refs);
    g->slab = slab_use(slab);
    g->layout = layout_copy(layout);
    g->table = g_new0(uint32_t *, layout_num_blocks(layout));
    for (unsigned i = 0; i < layout_num_blocks(layout); i++) {
        g->table[i] = table_new(layout_pages(layout, i));
        if (!g->table[i]) {
            ms_fail(errp, "no memory for a table of %" PRIu64 " pages",
                    layout_pages(layout, i));
            return NULL;
        }
        if (parent && !inherit_block(g, parent, i, errp)) {
            return NULL;
        }
    }
    return g_steal_pointer(&g);
}

Generation *generation_ref(Generation *g)
{
    g_atomic_ref_count_inc(&g->refs);
    return g;
}

static void give_back(Generation *g, unsigned block)
{
    uint64_t pages = layout_pages(g->layout, block);
    uint32_t batch[BATCH];
    unsigned n = 0;

    for (uint64_t i = 0; i < pages; i++) {
        uint32_t entry = g->table[block][i] & SLOT;

        if (entry) {
            batch[n++] = entry - 1;
        }
        if (n == BATCH || i == pages - 1) {
            slab_unref(g->slab, batch, n);
            n = 0;
        }
    }
    munmap(g->table[block], pages * sizeof(uint32_t));
}

void generation_unref(Generation *g)
{
    if (!g || !g_atomic_ref_count_dec(&g->refs)) {
        return;
    }
    for (unsigned i = 0; i < layout_num_blocks(g->layout); i++) {
        if (g->table[i]) {
            give_back(g, i);
        }
    }
    slab_leave(g->slab);
    g_free(g->table);
    layout_free(g->layout);
    g_free(g);
}

/* A slot of this generation for a page that comes with data. */
static void *place(Generation *g, SlabCursor *cursor, uint32_t *entry,
                   GError **errp)
{
    uint32_t old = __atomic_load_n(entry, __ATOMIC_ACQUIRE), slot;

    if ((old & SLOT) && !(old & INHERITED)) {
        if (old & ZERO) {
            __atomic_and_fetch(entry, ~ZERO, __ATOMIC_ACQ_REL);
        }
        return slab_page(g->slab, (old & SLOT) - 1);
    }
    if (!slab_take(g->slab, cursor, &slot, errp)) {
        return NULL;
    }
    if (!__atomic_compare_exchange_n(entry, &old, slot + 1, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        slab_unref(g->slab, &slot, 1);
        ms_fail(errp, "a page comes through two channels at once");
        return NULL;
    }
    if (old & SLOT) {
        slot = (old & SLOT) - 1;
        slab_unref(g->slab, &slot, 1);          /* the parent has it still */
        return slab_page(g->slab, (*entry & SLOT) - 1);
    }
    return slab_page(g->slab, slot);
}

bool generation_place(Generation *g, SlabCursor *cursor, unsigned block,
                      const MultifdPacket *p, void **where, GError **errp)
{
    g_assert(!g->sealed);
    for (unsigned i = 0; i < p->normal; i++) {
        uint32_t *entry = &g->table[block][p->offset[i] >> PAGE_BITS];

        where[i] = place(g, cursor, entry, errp);
        if (!where[i]) {
            return false;
        }
    }
    for (unsigned i = p->normal; i < p->normal + p->zero; i++) {
        uint32_t *entry = &g->table[block][p->offset[i] >> PAGE_BITS];

        __atomic_or_fetch(entry, ZERO, __ATOMIC_ACQ_REL);
    }
    return true;
}

void generation_drop(Generation *g, unsigned block, uint64_t first,
                     const uint64_t *bits, uint64_t pages)
{
    g_assert(!g->sealed);
    for (uint64_t i = 0; i < pages; i += 64) {
        uint64_t word = bits[i / 64];

        for (; word; word &= word - 1) {
            uint64_t at = i + __builtin_ctzll(word);

            if (at < pages) {
                g->table[block][first + at] |= ZERO;
            }
        }
    }
}

static void seal_block(Generation *g, unsigned block, bool inherit)
{
    uint64_t pages = layout_pages(g->layout, block);
    uint32_t batch[BATCH];
    unsigned n = 0;

    for (uint64_t i = 0; i < pages; i++) {
        uint32_t *entry = &g->table[block][i];
        bool keep = !(*entry & ZERO) && (inherit || !(*entry & INHERITED));

        if ((*entry & SLOT) && !keep) {
            batch[n++] = (*entry & SLOT) - 1;
        }
        if (*entry) {
            g->own_pages += keep && !(*entry & INHERITED);
            *entry = keep ? *entry & SLOT : 0;
            g->pages += keep;
        }
        if (n == BATCH || i == pages - 1) {
            slab_unref(g->slab, batch, n);
            n = 0;
        }
    }
}

void generation_seal(Generation *g, bool inherit)
{
    for (unsigned i = 0; i < layout_num_blocks(g->layout); i++) {
        seal_block(g, i, inherit);
    }
    g->sealed = true;
}

const void *generation_page(const Generation *g, unsigned block,
                            uint64_t index)
{
    uint32_t entry = g->table[block][index];

    return entry ? slab_page(g->slab, entry - 1) : NULL;
}

const Layout *generation_layout(const Generation *g)
{
    return g->layout;
}

uint64_t generation_pages(const Generation *g)
{
    return g->pages;
}

uint64_t generation_own_pages(const Generation *g)
{
    return g->own_pages;
}
