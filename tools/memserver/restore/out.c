/*
 * What is to be written to a connection that does not block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "out.h"

/* The kernel's limit is 1024 */
#define IOVECS 512

typedef struct Piece {
    const void *data;                   /* NULL: in the copies */
    size_t at, size;
} Piece;

struct Out {
    GByteArray *copies;
    GArray *pieces;                     /* Piece */
    unsigned first;                     /* not written yet, */
    size_t written;                     /* but for so much of it */
    uint64_t pending;
};

Out *out_new(void)
{
    Out *o = g_new0(Out, 1);

    o->copies = g_byte_array_new();
    o->pieces = g_array_new(false, false, sizeof(Piece));
    return o;
}

void out_free(Out *o)
{
    if (o) {
        g_byte_array_unref(o->copies);
        g_array_unref(o->pieces);
        g_free(o);
    }
}

void out_copy(Out *o, const void *data, size_t size)
{
    Piece *last = o->pieces->len ?
        &g_array_index(o->pieces, Piece, o->pieces->len - 1) : NULL;
    Piece p = { .at = o->copies->len, .size = size };

    g_byte_array_append(o->copies, data, size);
    if (last && !last->data) {
        last->size += size;
    } else {
        g_array_append_val(o->pieces, p);
    }
    o->pending += size;
}

void out_refer(Out *o, const void *data, size_t size)
{
    Piece p = { .data = data, .size = size };

    g_array_append_val(o->pieces, p);
    o->pending += size;
}

void out_u8(Out *o, uint8_t v)
{
    out_copy(o, &v, sizeof(v));
}

void out_be16(Out *o, uint16_t v)
{
    v = GUINT16_TO_BE(v);
    out_copy(o, &v, sizeof(v));
}

void out_be32(Out *o, uint32_t v)
{
    v = GUINT32_TO_BE(v);
    out_copy(o, &v, sizeof(v));
}

void out_be64(Out *o, uint64_t v)
{
    v = GUINT64_TO_BE(v);
    out_copy(o, &v, sizeof(v));
}

void out_name(Out *o, const char *name)
{
    out_u8(o, strlen(name));
    out_copy(o, name, strlen(name));
}

uint64_t out_pending(const Out *o)
{
    return o->pending;
}

static unsigned gather(const Out *o, struct iovec *iov)
{
    unsigned n = 0;

    for (unsigned i = o->first; i < o->pieces->len && n < IOVECS; i++) {
        const Piece *p = &g_array_index(o->pieces, Piece, i);
        size_t skip = i == o->first ? o->written : 0;
        const char *data = p->data ?:
            (const void *)(o->copies->data + p->at);

        iov[n++] = (struct iovec) { (void *)(data + skip), p->size - skip };
    }
    return n;
}

static void took(Out *o, size_t size)
{
    o->pending -= size;
    while (size) {
        const Piece *p = &g_array_index(o->pieces, Piece, o->first);
        size_t left = p->size - o->written;

        if (size < left) {
            o->written += size;
            return;
        }
        size -= left;
        o->written = 0;
        o->first++;
    }
}

bool out_write(Out *o, Target *target, GError **errp)
{
    struct iovec iov[IOVECS];

    while (o->pending) {
        gssize n = target_write(target, iov, gather(o, iov), errp);

        if (n <= 0) {
            return n == 0;
        }
        took(o, n);
    }
    g_byte_array_set_size(o->copies, 0);
    g_array_set_size(o->pieces, 0);
    o->first = 0;
    return true;
}
