/*
 * Parser of the return path
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "be.h"
#include "error.h"
#include "rp.h"
#include "wire.h"

#define HEAD 4                          /* type, length */
#define REQUEST 12                      /* start, length of a page */
/* The longest message: a request with a block's name */
#define MESSAGE_MAX (REQUEST + 1 + BLOCK_NAME_MAX)
#define BITMAP_SIZE 8
#define BITMAP_END 8

typedef enum RpWants {
    WANTS_HEAD,
    WANTS_DATA,
    WANTS_BITMAP_SIZE,
    WANTS_BITMAP,                       /* and the mark behind it */
} RpWants;

struct Rp {
    const RpOps *ops;
    void *opaque;
    const Layout *layout;
    const uint64_t *page_sizes;
    RpWants wants;
    size_t size;                        /* bytes of what is wanted */
    GByteArray *got;
    uint16_t type;
    int asked;                          /* block of the last request, or -1 */
    unsigned bitmap_of;
    bool shut;
};

Rp *rp_new(const RpOps *ops, void *opaque, const Layout *layout,
           const uint64_t *page_sizes)
{
    Rp *rp = g_new0(Rp, 1);

    rp->ops = ops;
    rp->opaque = opaque;
    rp->layout = layout;
    rp->page_sizes = page_sizes;
    rp->size = HEAD;
    rp->got = g_byte_array_new();
    rp->asked = -1;
    return rp;
}

void rp_free(Rp *rp)
{
    if (rp) {
        g_byte_array_unref(rp->got);
        g_free(rp);
    }
}

static void want(Rp *rp, RpWants what, size_t size)
{
    rp->wants = what;
    rp->size = size;
}

/* QEMU pads to 8 bytes. */
static size_t bitmap_size(const Rp *rp, unsigned block)
{
    return (layout_pages(rp->layout, block) + 63) / 64 * 8;
}

/* The block whose name is at @p, behind its length, up to @end; or -1. */
static int block_named(Rp *rp, const uint8_t *p, const uint8_t *end)
{
    char name[BLOCK_NAME_MAX + 1] = "";

    if (p == end || end - p != 1 + p[0]) {
        return -1;
    }
    memcpy(name, p + 1, p[0]);
    return strlen(name) == p[0] ? layout_find(rp->layout, name) : -1;
}

static bool head(Rp *rp, GError **errp)
{
    uint16_t size = get_be16(rp->got->data + 2);
    uint16_t least = 0, most = 0;

    rp->type = get_be16(rp->got->data);
    switch (rp->type) {
    case MIG_RP_MSG_SHUT:
    case MIG_RP_MSG_PONG:
    case MIG_RP_MSG_RESUME_ACK:
        least = most = sizeof(uint32_t);
        break;
    case MIG_RP_MSG_REQ_PAGES:
        least = most = REQUEST;
        break;
    case MIG_RP_MSG_REQ_PAGES_ID:
        least = REQUEST + 2;
        most = MESSAGE_MAX;
        break;
    case MIG_RP_MSG_RECV_BITMAP:
        least = 2;
        most = 1 + BLOCK_NAME_MAX;
        break;
    case MIG_RP_MSG_SWITCHOVER_ACK:
        break;
    default:
        return ms_fail(errp, "return path: message of type %u", rp->type);
    }
    if (size < least || size > most) {
        return ms_fail(errp, "return path: message of type %u with %u bytes",
                       rp->type, size);
    }
    if (size) {
        want(rp, WANTS_DATA, size);
    }
    return true;
}

static bool request(Rp *rp, const uint8_t *p, GError **errp)
{
    uint64_t start = get_be64(p);
    uint32_t size = get_be32(p + 8);
    uint64_t page_size;

    if (rp->asked < 0) {
        return ms_fail(errp, "return path: a request for an unknown block");
    }
    page_size = rp->page_sizes[rp->asked];
    if (size != page_size || start % page_size ||
        start >= layout_block(rp->layout, rp->asked)->length) {
        return ms_fail(errp, "return path: a request for %u bytes at 0x%" PRIx64
                       " of block '%s'", size, start,
                       layout_block(rp->layout, rp->asked)->name);
    }
    return rp->ops->request(rp->opaque, rp->asked, start / page_size, errp);
}

static bool message(Rp *rp, GError **errp)
{
    const uint8_t *p = rp->got->data, *end = p + rp->got->len;
    int block;

    switch (rp->type) {
    case MIG_RP_MSG_SHUT:
        rp->shut = true;
        return rp->ops->shut(rp->opaque, get_be32(p), errp);
    case MIG_RP_MSG_PONG:
        return rp->ops->pong(rp->opaque, get_be32(p), errp);
    case MIG_RP_MSG_RESUME_ACK:
        if (get_be32(p) != MIGRATION_RESUME_ACK_VALUE) {
            return ms_fail(errp, "QEMU refuses to be resumed");
        }
        return rp->ops->resume_ack(rp->opaque, errp);
    case MIG_RP_MSG_REQ_PAGES_ID:
        rp->asked = block_named(rp, p + REQUEST, end);
        return request(rp, p, errp);
    case MIG_RP_MSG_REQ_PAGES:
        return request(rp, p, errp);
    default:                            /* MIG_RP_MSG_RECV_BITMAP */
        block = block_named(rp, p, end);
        if (block < 0) {
            return ms_fail(errp, "return path: bitmap of an unknown block");
        }
        rp->bitmap_of = block;
        want(rp, WANTS_BITMAP_SIZE, BITMAP_SIZE);
        return true;
    }
}

static bool bitmap(Rp *rp, GError **errp)
{
    const uint8_t *p = rp->got->data;

    if (get_be64(p + rp->got->len - BITMAP_END) !=
        RAMBLOCK_RECV_BITMAP_ENDING) {
        return ms_fail(errp, "return path: the bitmap's end is not there");
    }
    return rp->ops->received(rp->opaque, rp->bitmap_of, p, errp);
}

/* What was wanted is there. */
static bool complete(Rp *rp, GError **errp)
{
    RpWants what = rp->wants;
    uint64_t size;

    want(rp, WANTS_HEAD, HEAD);
    switch (what) {
    case WANTS_HEAD:
        return head(rp, errp);
    case WANTS_DATA:
        return message(rp, errp);
    case WANTS_BITMAP_SIZE:
        size = get_be64(rp->got->data);
        if (size != bitmap_size(rp, rp->bitmap_of)) {
            return ms_fail(errp, "return path: a bitmap of %" PRIu64
                           " bytes for block '%s'", size,
                           layout_block(rp->layout, rp->bitmap_of)->name);
        }
        want(rp, WANTS_BITMAP, size + BITMAP_END);
        return true;
    default:
        return bitmap(rp, errp);
    }
}

bool rp_feed(Rp *rp, const void *data, size_t size, GError **errp)
{
    const uint8_t *p = data;

    while (size) {
        size_t n = MIN(size, rp->size - rp->got->len);

        if (rp->shut) {
            return ms_fail(errp, "return path: more behind its end");
        }
        g_byte_array_append(rp->got, p, n);
        p += n;
        size -= n;
        if (rp->got->len == rp->size) {
            if (!complete(rp, errp)) {
                return false;
            }
            g_byte_array_set_size(rp->got, 0);
        }
    }
    return true;
}
