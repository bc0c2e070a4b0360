/*
 * Parser of the return path: what QEMU says while it is being restored
 *
 * Bytes are pushed in as they come; what they mean is told by calls.  There is
 * no I/O here.  QEMU is not trusted: a block must be known, a page must be
 * aligned and inside, and no message may be longer than it has to be.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_RP_H
#define RESTORE_RP_H

#include "layout.h"

typedef struct RpOps {
    bool (*pong)(void *opaque, uint32_t value, GError **errp);
    /* @page: in pages of the block's page size */
    bool (*request)(void *opaque, unsigned block, uint64_t page,
                    GError **errp);
    /* A bit for 4096 bytes, for all of the block. */
    bool (*received)(void *opaque, unsigned block, const uint8_t *bitmap,
                     GError **errp);
    bool (*resume_ack)(void *opaque, GError **errp);
    /* @value: 0: QEMU has got all.  It says no more. */
    bool (*shut)(void *opaque, uint32_t value, GError **errp);
} RpOps;

typedef struct Rp Rp;

/* @layout and @page_sizes, QEMU's, by block, must live as long. */
Rp *rp_new(const RpOps *ops, void *opaque, const Layout *layout,
           const uint64_t *page_sizes);
void rp_free(Rp *rp);

/* False: an error, which is final. */
bool rp_feed(Rp *rp, const void *data, size_t size, GError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Rp, rp_free)

#endif
