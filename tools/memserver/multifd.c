/*
 * Parser of what comes through a multifd channel
 *
 * See QEMU's migration/multifd.h for the format.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "be.h"
#include "error.h"
#include "multifd.h"

#define MULTIFD_MAGIC 0x11223344
#define MULTIFD_VERSION 1

#define FLAG_SYNC 0x01
#define FLAG_METHOD 0x3e
#define FLAG_METHOD_SHIFT 1
#define FLAG_DEVICE_STATE 0x40

/* Offsets of the fields of a packet */
#define AT_FLAGS 8
#define AT_ALLOC 12
#define AT_NORMAL 16
#define AT_PAYLOAD 20
#define AT_ZERO 32
#define AT_BLOCK 64
#define AT_OFFSETS 320
#define BLOCK_FIELD 256

/* Of the introduction */
#define AT_UUID 8
#define AT_ID 24

void multifd_init(Multifd *m)
{
    memset(m, 0, sizeof(*m));
    m->state = MULTIFD_AT_INIT;
}

size_t multifd_wants(Multifd *m, void **buffer)
{
    *buffer = m->buffer;
    switch (m->state) {
    case MULTIFD_AT_INIT:
        return MULTIFD_INIT_SIZE;
    case MULTIFD_AT_HEADER:
        return MULTIFD_HEADER_SIZE;
    default:
        *buffer = m->buffer + MULTIFD_HEADER_SIZE;
        return MULTIFD_PACKET_SIZE - MULTIFD_HEADER_SIZE;
    }
}

static bool magic(const Multifd *m, GError **errp)
{
    if (get_be32(m->buffer) != MULTIFD_MAGIC ||
        get_be32(m->buffer + 4) != MULTIFD_VERSION) {
        return ms_fail(errp, "this is no multifd channel (magic %08x, version "
                       "%u)", get_be32(m->buffer), get_be32(m->buffer + 4));
    }
    return true;
}

static bool flags(const Multifd *m, GError **errp)
{
    uint32_t f = get_be32(m->buffer + AT_FLAGS);
    uint32_t method = (f & FLAG_METHOD) >> FLAG_METHOD_SHIFT;

    if (f & FLAG_DEVICE_STATE) {
        return ms_fail(errp, "a device sends its state through a multifd "
                       "channel (VFIO does): that is not supported");
    }
    if (f & ~(FLAG_SYNC | FLAG_METHOD)) {
        return ms_fail(errp, "flags %08x of a multifd packet are not known",
                       f);
    }
    if (method != MULTIFD_PLAIN && method != MULTIFD_ZLIB &&
        method != MULTIFD_ZSTD) {
        return ms_fail(errp, "multifd-compression must be none, zlib or zstd "
                       "(the packet says %u)", method);
    }
    return true;
}

static bool counts(MultifdPacket *p, const uint8_t *b, GError **errp)
{
    uint32_t alloc = get_be32(b + AT_ALLOC);

    p->normal = get_be32(b + AT_NORMAL);
    p->zero = get_be32(b + AT_ZERO);
    p->payload = get_be32(b + AT_PAYLOAD);
    if (alloc > MULTIFD_PAGES || p->normal > alloc ||
        p->zero > alloc - p->normal) {
        return ms_fail(errp, "a multifd packet has %u pages and %u zero pages "
                       "of %u", p->normal, p->zero, alloc);
    }
    if (p->method == MULTIFD_PLAIN
        ? p->payload != p->normal * PAGE_SIZE
        : p->payload > (p->normal ? MULTIFD_MAX_COMPRESSED : 0)) {
        return ms_fail(errp, "a multifd packet has %u bytes for %u pages",
                       p->payload, p->normal);
    }
    return true;
}

static bool packet(Multifd *m, GError **errp)
{
    MultifdPacket *p = &m->packet;
    uint32_t f = get_be32(m->buffer + AT_FLAGS);

    memset(p, 0, sizeof(*p));
    p->sync = f & FLAG_SYNC;
    p->method = (f & FLAG_METHOD) >> FLAG_METHOD_SHIFT;
    if (!counts(p, m->buffer, errp)) {
        return false;
    }
    if (!p->normal && !p->zero) {
        return true;
    }
    if (!memchr(m->buffer + AT_BLOCK, 0, BLOCK_FIELD)) {
        return ms_fail(errp, "the block of a multifd packet has no end");
    }
    g_strlcpy(p->block, (char *)m->buffer + AT_BLOCK, sizeof(p->block));
    for (unsigned i = 0; i < p->normal + p->zero; i++) {
        p->offset[i] = get_be64(m->buffer + AT_OFFSETS + 8 * i);
        if (p->offset[i] % PAGE_SIZE) {
            return ms_fail(errp, "offset %" PRIx64 " of a multifd packet is "
                           "within a page", p->offset[i]);
        }
    }
    return true;
}

MultifdEvent multifd_got(Multifd *m, GError **errp)
{
    if (m->state != MULTIFD_AT_PACKET && !magic(m, errp)) {
        return MULTIFD_ERROR;
    }
    switch (m->state) {
    case MULTIFD_AT_INIT:
        memcpy(m->uuid, m->buffer + AT_UUID, sizeof(m->uuid));
        m->id = m->buffer[AT_ID];
        m->state = MULTIFD_AT_HEADER;
        return MULTIFD_INTRODUCED;
    case MULTIFD_AT_HEADER:
        if (!flags(m, errp)) {
            return MULTIFD_ERROR;
        }
        m->state = MULTIFD_AT_PACKET;
        return MULTIFD_MORE;
    default:
        m->state = MULTIFD_AT_HEADER;
        return packet(m, errp) ? MULTIFD_HAS_PACKET : MULTIFD_ERROR;
    }
}

int multifd_locate(const MultifdPacket *p, const Layout *l, GError **errp)
{
    int number = layout_find(l, p->block);

    if (number < 0) {
        g_autofree char *safe = g_strescape(p->block, NULL);

        ms_fail(errp, "a multifd packet is for block \"%s\", which is not "
                "known", safe);
        return -1;
    }
    for (unsigned i = 0; i < p->normal + p->zero; i++) {
        /* Both are whole pages. */
        if (p->offset[i] >= layout_block(l, number)->length) {
            ms_fail(errp, "offset %" PRIx64 " is behind the end of block %s "
                    "(%" PRIx64 ")", p->offset[i], p->block,
                    layout_block(l, number)->length);
            return -1;
        }
    }
    return number;
}
