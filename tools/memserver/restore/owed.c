/*
 * Which pages QEMU still lacks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "error.h"
#include "owed.h"

#define BITS 64

typedef struct OwedBlock {
    uint64_t pages, page_size;
    uint64_t *data, *zero;              /* a bit a page; never both set */
} OwedBlock;

struct Owed {
    unsigned count;
    uint64_t left;                      /* bytes */
    OwedBlock *blocks;
};

static bool test_bit(const uint64_t *map, uint64_t i)
{
    return map[i / BITS] >> i % BITS & 1;
}

static void set_bit(uint64_t *map, uint64_t i)
{
    map[i / BITS] |= 1ULL << i % BITS;
}

static void clear_bit(uint64_t *map, uint64_t i)
{
    map[i / BITS] &= ~(1ULL << i % BITS);
}

/* @size if there is none */
static uint64_t find_bit(const uint64_t *map, uint64_t size, uint64_t from)
{
    for (uint64_t w = from / BITS; w < (size + BITS - 1) / BITS; w++) {
        uint64_t word = map[w];

        if (w == from / BITS) {
            word &= ~0ULL << from % BITS;
        }
        if (word) {
            return w * BITS + __builtin_ctzll(word);
        }
    }
    return size;
}

static bool has_data(const MemImage *image, unsigned block, uint64_t from,
                     uint64_t count)
{
    for (uint64_t i = from; i < from + count; i++) {
        if (mem_image_page(image, block, i)) {
            return true;
        }
    }
    return false;
}

static bool add_block(Owed *o, const MemImage *image, unsigned i,
                      uint64_t page_size, GError **errp)
{
    const LayoutBlock *lb = layout_block(mem_image_layout(image), i);
    OwedBlock *b = &o->blocks[i];
    uint64_t words;

    if (page_size < PAGE_SIZE || page_size & (page_size - 1) ||
        lb->length % page_size) {
        return ms_fail(errp, "block '%s' has %" PRIu64 " bytes, and cannot "
                       "have pages of %" PRIu64, lb->name, lb->length,
                       page_size);
    }
    b->page_size = page_size;
    b->pages = lb->length / page_size;
    words = (b->pages + BITS - 1) / BITS;
    b->data = g_try_new0(uint64_t, words);
    b->zero = g_try_new0(uint64_t, words);
    if (!b->data || !b->zero) {
        return ms_fail(errp, "no memory for the maps of block '%s'", lb->name);
    }
    for (uint64_t p = 0; p < b->pages; p++) {
        if (has_data(image, i, p * (page_size / PAGE_SIZE),
                     page_size / PAGE_SIZE)) {
            set_bit(b->data, p);
            o->left += page_size;
        } else {
            set_bit(b->zero, p);
        }
    }
    return true;
}

Owed *owed_new(const MemImage *image, const uint64_t *page_sizes,
               GError **errp)
{
    g_autoptr(Owed) o = g_new0(Owed, 1);

    o->count = layout_num_blocks(mem_image_layout(image));
    o->blocks = g_new0(OwedBlock, o->count);
    for (unsigned i = 0; i < o->count; i++) {
        if (!add_block(o, image, i, page_sizes[i], errp)) {
            return NULL;
        }
    }
    return g_steal_pointer(&o);
}

void owed_free(Owed *o)
{
    if (o) {
        for (unsigned i = 0; i < o->count; i++) {
            g_free(o->blocks[i].data);
            g_free(o->blocks[i].zero);
        }
        g_free(o->blocks);
        g_free(o);
    }
}

uint64_t owed_page_size(const Owed *o, unsigned block)
{
    return o->blocks[block].page_size;
}

uint64_t owed_pages(const Owed *o, unsigned block)
{
    return o->blocks[block].pages;
}

uint64_t owed_left(const Owed *o)
{
    return o->left;
}

OwedKind owed_kind(const Owed *o, unsigned block, uint64_t page)
{
    const OwedBlock *b = &o->blocks[block];

    return test_bit(b->data, page) ? OWED_DATA :
           test_bit(b->zero, page) ? OWED_ZERO : OWED_NOT;
}

OwedKind owed_take(Owed *o, unsigned block, uint64_t page)
{
    OwedBlock *b = &o->blocks[block];
    OwedKind kind = owed_kind(o, block, page);

    clear_bit(b->data, page);
    clear_bit(b->zero, page);
    if (kind == OWED_DATA) {
        o->left -= b->page_size;
    }
    return kind;
}

bool owed_next(const Owed *o, unsigned *block, uint64_t *page)
{
    uint64_t from = *page;

    if (!o->left) {
        return false;
    }
    /* The first block twice: from the page on, and from its beginning */
    for (unsigned i = 0; i <= o->count; i++) {
        unsigned at = (*block + i) % o->count;
        const OwedBlock *b = &o->blocks[at];
        uint64_t found = find_bit(b->data, b->pages, from);

        if (found < b->pages) {
            *block = at;
            *page = found;
            return true;
        }
        from = 0;
    }
    g_assert_not_reached();
}

void owed_received(Owed *o, unsigned block, const uint8_t *bitmap)
{
    uint64_t step = o->blocks[block].page_size / PAGE_SIZE;

    for (uint64_t p = 0; p < o->blocks[block].pages; p++) {
        if (bitmap[p * step / 8] >> p * step % 8 & 1) {
            owed_take(o, block, p);
        }
    }
}
