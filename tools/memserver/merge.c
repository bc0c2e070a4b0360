/*
 * The merge: which server of a set has the newest version of each page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <sys/mman.h>

#include "error.h"
#include "merge.h"
#include "peer-proto.h"

typedef struct Block {
    void *memory;                       /* all of these: */
    size_t size;
    uint64_t *superseded[PARTS_MAX];    /* bits */
    uint32_t *rank;                     /* the highest yet */
    uint8_t *owner;                     /* the part that has it */
} Block;

struct Merge {
    Layout *layout;
    unsigned parts;
    Block *blocks;
};

static bool block_init(Block *b, uint64_t pages, unsigned parts)
{
    size_t bits = merge_words(pages) * sizeof(uint64_t);
    uint8_t *p;

    b->size = parts * bits + pages * (sizeof(*b->rank) + sizeof(*b->owner));
    /* Page faults now, and not when a source waits for the merge. */
    p = mmap(NULL, b->size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED) {
        return false;
    }
    b->memory = p;
    for (unsigned i = 0; i < parts; i++) {
        b->superseded[i] = (void *)(p + i * bits);
    }
    b->rank = (void *)(p + parts * bits);
    b->owner = (void *)(b->rank + pages);
    return true;
}

Merge *merge_new(const Layout *layout, unsigned parts, GError **errp)
{
    g_autoptr(Merge) m = g_new0(Merge, 1);

    m->layout = layout_copy(layout);
    m->parts = parts;
    m->blocks = g_new0(Block, layout_num_blocks(layout));
    for (unsigned i = 0; i < layout_num_blocks(layout); i++) {
        if (!block_init(&m->blocks[i], layout_pages(layout, i), parts)) {
            ms_fail(errp, "no memory to merge %" PRIu64 " pages",
                    layout_pages(layout, i));
            return NULL;
        }
    }
    return g_steal_pointer(&m);
}

void merge_free(Merge *m)
{
    if (!m) {
        return;
    }
    for (unsigned i = 0; i < layout_num_blocks(m->layout); i++) {
        if (m->blocks[i].memory) {
            munmap(m->blocks[i].memory, m->blocks[i].size);
        }
    }
    g_free(m->blocks);
    layout_free(m->layout);
    g_free(m);
}

static void set_bit(uint64_t *bits, uint64_t at)
{
    bits[at / 64] |= 1ull << at % 64;
}

static bool tie(const Merge *m, unsigned block, uint64_t page, unsigned part,
                GError **errp)
{
    return ms_fail(errp, "page %" PRIu64 " of block %s has come to part %u and "
                   "to part %u between the same two SYNCs", page,
                   layout_block(m->layout, block)->name,
                   m->blocks[block].owner[page], part);
}

bool merge_add(Merge *m, unsigned part, unsigned block, uint64_t first,
               uint64_t count, uint32_t rank, GError **errp)
{
    Block *b = &m->blocks[block];

    if (!rank) {
        return true;
    }
    for (uint64_t i = first; i < first + count; i++) {
        uint32_t other = b->rank[i];

        if (other == rank) {
            return tie(m, block, i, part, errp);
        }
        if (other > rank) {
            set_bit(b->superseded[part], i);
            continue;
        }
        if (other) {
            set_bit(b->superseded[b->owner[i]], i);
        }
        b->rank[i] = rank;
        b->owner[i] = part;
    }
    return true;
}

const uint64_t *merge_superseded(const Merge *m, unsigned part, unsigned block)
{
    return m->blocks[block].superseded[part];
}
