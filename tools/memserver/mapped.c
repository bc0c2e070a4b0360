/*
 * A generation as a file that QEMU restores: mapped-ram
 *
 * See QEMU's docs/devel/migration/mapped-ram.rst.  The file is a list of
 * pieces: bytes, and RAM blocks, whose pages are where the generation has
 * them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "be.h"
#include "image.h"
#include "mapped.h"

#define MAPPED_RAM_VERSION 1
#define MAPPED_RAM_HEADER_SIZE 28
/* QEMU's MAPPED_RAM_FILE_OFFSET_ALIGNMENT */
#define MAPPED_RAM_ALIGNMENT (1 << 20)

/* QEMU's index of capability "mapped-ram" is not in the stream; its name is. */
#define CAPABILITIES "configuration/capabilities"
#define MAPPED_RAM "mapped-ram"

typedef struct Piece {
    uint64_t at, size;
    GByteArray *bytes;                  /* NULL: a RAM block */
    unsigned block;
} Piece;

struct Mapped {
    const Generation *g;
    GArray *pieces;                     /* by offset; gaps are holes */
    uint64_t size;
};

static void add_bytes(Mapped *m, GByteArray *bytes)
{
    Piece p = { .at = m->size, .size = bytes->len, .bytes = bytes };

    g_array_append_val(m->pieces, p);
    m->size += bytes->len;
}

static void put_name(GByteArray *b, const char *name)
{
    put_u8(b, strlen(name));
    g_byte_array_append(b, (void *)name, strlen(name));
}

static GByteArray *head(const Layout *l, bool part)
{
    GByteArray *b = g_byte_array_new();

    put_be32(b, 0x5145564d);            /* file's magic, version */
    put_be32(b, 3);
    put_u8(b, 7);                       /* configuration */
    put_be32(b, strlen(l->machine));
    g_byte_array_append(b, (void *)l->machine, strlen(l->machine));
    /* A list of capabilities: the loader insists on them. */
    put_u8(b, 5);
    put_name(b, CAPABILITIES);
    put_be32(b, 1);
    put_be32(b, part ? 2 : 1);
    put_name(b, MAPPED_RAM);
    if (part) {
        put_name(b, PART_CAPABILITY);
    }
    g_byte_array_append(b, l->subsections->data, l->subsections->len);
    /* The start of section "ram", with the size of all blocks. */
    put_u8(b, 1);
    put_be32(b, l->ram_id);
    put_u8(b, 3);
    g_byte_array_append(b, (void *)"ram", 3);
    put_be32(b, 0);
    put_be32(b, 4);
    put_be64(b, l->total | 0x4);
    return b;
}

static GByteArray *bitmap(const Generation *g, unsigned block)
{
    uint64_t pages = layout_pages(generation_layout(g), block);
    GByteArray *b = g_byte_array_new();

    g_byte_array_set_size(b, (pages + 63) / 64 * 8);
    memset(b->data, 0, b->len);
    for (uint64_t i = 0; i < pages; i++) {
        if (generation_page(g, block, i)) {
            b->data[i / 8] |= 1 << (i % 8);
        }
    }
    return b;
}

static void end_of_section(GByteArray *b, uint32_t id)
{
    put_be64(b, 0x10);                  /* RAM_SAVE_FLAG_EOS */
    put_u8(b, 0x7e);                    /* footer */
    put_be32(b, id);
}

static void add_block(Mapped *m, unsigned i, GByteArray *b)
{
    const LayoutBlock *block = layout_block(generation_layout(m->g), i);
    g_autoptr(GByteArray) bits = bitmap(m->g, i);
    uint64_t bitmap_at, pages_at;
    Piece p = { .block = i, .size = block->length };

    put_name(b, block->name);
    put_be64(b, block->length);
    bitmap_at = m->size + b->len + MAPPED_RAM_HEADER_SIZE;
    pages_at = (bitmap_at + bits->len + MAPPED_RAM_ALIGNMENT - 1) &
        -(uint64_t)MAPPED_RAM_ALIGNMENT;
    put_be32(b, MAPPED_RAM_VERSION);
    put_be64(b, PAGE_SIZE);
    put_be64(b, bitmap_at);
    put_be64(b, pages_at);
    g_byte_array_append(b, bits->data, bits->len);
    add_bytes(m, b);
    p.at = pages_at;
    g_array_append_val(m->pieces, p);
    m->size = pages_at + block->length;
}

Mapped *mapped_new(const Generation *g, const GByteArray *state, bool part)
{
    Mapped *m = g_new0(Mapped, 1);
    const Layout *l = generation_layout(g);
    GByteArray *tail = g_byte_array_new();

    m->g = g;
    m->pieces = g_array_new(false, false, sizeof(Piece));
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        add_block(m, i, i ? g_byte_array_new() : head(l, part));
    }
    end_of_section(tail, l->ram_id);
    put_u8(tail, 3);                    /* section "ram" ends */
    put_be32(tail, l->ram_id);
    end_of_section(tail, l->ram_id);
    g_byte_array_append(tail, state->data, state->len);
    add_bytes(m, tail);
    return m;
}

void mapped_free(Mapped *m)
{
    for (unsigned i = 0; i < m->pieces->len; i++) {
        Piece *p = &g_array_index(m->pieces, Piece, i);

        if (p->bytes) {
            g_byte_array_unref(p->bytes);
        }
    }
    g_array_unref(m->pieces);
    g_free(m);
}

uint64_t mapped_size(const Mapped *m)
{
    return m->size;
}

uint64_t mapped_data(const Mapped *m)
{
    uint64_t sum = generation_pages(m->g) * PAGE_SIZE;

    for (unsigned i = 0; i < m->pieces->len; i++) {
        const Piece *p = &g_array_index(m->pieces, Piece, i);

        sum += p->bytes ? p->size : 0;
    }
    return sum;
}

static bool zero(const uint8_t *p, size_t size)
{
    return !size || (!*p && !memcmp(p, p + 1, size - 1));
}

/* Bytes @from to @from + @size of a RAM block. */
static bool read_block(const Mapped *m, unsigned block, uint64_t from,
                       uint8_t *to, size_t size)
{
    bool any = false;

    while (size) {
        size_t in = from % PAGE_SIZE, n = MIN(size, PAGE_SIZE - in);
        const uint8_t *page = generation_page(m->g, block, from / PAGE_SIZE);

        if (page) {
            memcpy(to, page + in, n);
            any = any || !zero(to, n);
        } else {
            memset(to, 0, n);
        }
        from += n;
        to += n;
        size -= n;
    }
    return any;
}

bool mapped_read(const Mapped *m, uint64_t at, void *to, size_t size)
{
    uint64_t done = at, end = at + size;
    bool any = false;

    for (unsigned i = 0; i < m->pieces->len; i++) {
        const Piece *p = &g_array_index(m->pieces, Piece, i);
        uint64_t from = MAX(p->at, at), until = MIN(p->at + p->size, end);
        uint8_t *here;

        if (from >= until) {
            continue;
        }
        memset((uint8_t *)to + (done - at), 0, from - done);
        here = (uint8_t *)to + (from - at);
        if (p->bytes) {
            memcpy(here, p->bytes->data + (from - p->at), until - from);
            any = any || !zero(here, until - from);
        } else {
            any |= read_block(m, p->block, from - p->at, here, until - from);
        }
        done = until;
    }
    memset((uint8_t *)to + (done - at), 0, end - done);
    return any;
}
