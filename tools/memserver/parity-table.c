/*
 * What a server with parity knows of the parts, as pages behind its own
 *
 * So it is in the file of the parity, and under its checksums.  The format:
 * length (8 bytes); head, layout and device state as a piece has them; number
 * of parts, of parities, of this one; the name of the parts; for each part its
 * server's address, a bit for each page of the layout, a checksum for each
 * page that is there.  Numbers are big-endian; texts have a length of 2 bytes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "be.h"
#include "error.h"
#include "parity.h"
#include "peer-proto.h"

#define LENGTH_SIZE 8

static void put_text(GByteArray *b, const char *text)
{
    size_t n = MIN(strlen(text), UINT16_MAX);

    put_be16(b, n);
    g_byte_array_append(b, (const void *)text, n);
}

static void put_part(GByteArray *b, const PartTable *t, const char *from)
{
    const Layout *l = t->map->layout;

    put_text(b, from);
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        for (uint64_t w = 0; w < page_map_words(l, i); w++) {
            put_be64(b, t->map->bits[i][w]);
        }
    }
    for (uint64_t i = 0; i < t->map->pages; i++) {
        put_be64(b, t->sums[i]);
    }
}

GByteArray *parity_table(const Parity *p)
{
    GByteArray *b = g_byte_array_new();
    uint64_t size;

    put_be64(b, 0);
    piece_put_front(b, p->parts[0].map->layout, p->state->data,
                    p->state->len);
    put_be32(b, p->data);
    put_be32(b, p->parity);
    put_be32(b, p->index);
    put_text(b, p->part_name);
    for (unsigned i = 0; i < p->data; i++) {
        put_part(b, &p->parts[i], p->from[i]);
    }
    size = GUINT64_TO_BE((uint64_t)b->len);
    memcpy(b->data, &size, LENGTH_SIZE);
    return b;
}

static bool take_uint(Reader *s, unsigned *to)
{
    const uint8_t *b = reader_take(s, 4);

    if (b) {
        *to = get_be32(b);
    }
    return b;
}

static bool take_text(Reader *s, char **to)
{
    const uint8_t *b = reader_take(s, 2);
    uint16_t size = b ? get_be16(b) : 0;

    b = b ? reader_take(s, size) : NULL;
    if (b) {
        *to = g_strndup((const char *)b, size);
    }
    return b;
}

static bool take_part(Reader *s, const Layout *l, PartTable *t, char **from)
{
    const uint8_t *b;

    if (!take_text(s, from)) {
        return false;
    }
    t->map = page_map_new(l);
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        b = reader_take(s, page_map_words(l, i) * 8);
        if (!b) {
            return false;
        }
        memcpy(t->map->bits[i], b, page_map_words(l, i) * 8);
        if (!page_map_take(t->map, i, NULL)) {
            return false;
        }
    }
    b = reader_take(s, t->map->pages * 8);
    if (!b) {
        return false;
    }
    t->sums = g_new(uint64_t, t->map->pages + 1);
    for (uint64_t i = 0; i < t->map->pages; i++) {
        t->sums[i] = get_be64(b + i * 8);
    }
    return true;
}

static bool take_all(Reader *s, Parity *p)
{
    g_autoptr(Layout) l = NULL;
    const uint8_t *head = reader_take(s, PIECE_HEAD_SIZE);
    uint64_t size = head ? piece_head(head, NULL) : 0;
    const uint8_t *rest = size ? reader_take(s, size) : NULL;
    /* There is a bit for each page in what is left. */
    uint64_t max_ram = s->left * 8 * PAGE_SIZE;
    unsigned data;

    if (!rest || !piece_parse(head, rest, max_ram, &l, &p->state, NULL) ||
        !take_uint(s, &data) || !take_uint(s, &p->parity) ||
        !take_uint(s, &p->index) || !erasure_possible(data, p->parity) ||
        p->index >= p->parity || !take_text(s, &p->part_name)) {
        return false;
    }
    for (; p->data < data; p->data++) {
        /* Counted first: what it has got is freed in any case. */
        PartTable *t = &p->parts[p->data];

        if (!take_part(s, l, t, &p->from[p->data])) {
            p->data++;
            return false;
        }
    }
    return true;
}

Parity *parity_from_table(const uint8_t *data, uint64_t size, GError **errp)
{
    Parity *p = parity_alloc();
    Reader s = { .at = data, .left = size };
    const uint8_t *length = reader_take(&s, LENGTH_SIZE);

    if (length && get_be64(length) <= size) {
        s.left = get_be64(length) - MIN(get_be64(length), LENGTH_SIZE);
        if (take_all(&s, p)) {
            return p;
        }
    }
    parity_unref(p);
    ms_fail(errp, "what it knows of the parts is not as it was written");
    return NULL;
}
