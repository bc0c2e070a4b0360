/*
 * Big-endian integers at any address, and reading that ends where bytes do
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_BE_H
#define MEMSERVER_BE_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t get_be16(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return GUINT16_FROM_BE(v);
}

static inline uint32_t get_be32(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return GUINT32_FROM_BE(v);
}

static inline uint64_t get_be64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return GUINT64_FROM_BE(v);
}

/* What has not been read yet */
typedef struct Reader {
    const uint8_t *at;
    size_t left;
} Reader;

/* The next @size bytes; NULL: so much is not there. */
static inline const uint8_t *reader_take(Reader *r, size_t size)
{
    const uint8_t *p = r->at;

    if (size > r->left) {
        return NULL;
    }
    r->at += size;
    r->left -= size;
    return p;
}

static inline void put_be16(GByteArray *to, uint16_t v)
{
    v = GUINT16_TO_BE(v);
    g_byte_array_append(to, (void *)&v, sizeof(v));
}

static inline void put_be32(GByteArray *to, uint32_t v)
{
    v = GUINT32_TO_BE(v);
    g_byte_array_append(to, (void *)&v, sizeof(v));
}

static inline void put_be64(GByteArray *to, uint64_t v)
{
    v = GUINT64_TO_BE(v);
    g_byte_array_append(to, (void *)&v, sizeof(v));
}

static inline void put_u8(GByteArray *to, uint8_t v)
{
    g_byte_array_append(to, &v, 1);
}

#endif
