/*
 * What a source of a migration says, made from an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_SPEAK_H
#define RESTORE_SPEAK_H

#include "image.h"
#include "out.h"
#include "wire.h"

/* Values of the PINGs before the first page */
enum {
    PING_HELLO = 1,                     /* QEMU knows of its return path */
    PING_DISCARDED = 2,
    PING_LOADED = 3,                    /* the devices' state; it runs */
    PING_LISTENING = 4,                 /* it takes pages */
};

/* Magic and configuration. */
void speak_header(Out *out, const MemImage *image);

void speak_command(Out *out, unsigned command, const void *data, size_t size);
void speak_ping(Out *out, uint32_t value);

/* Of section "ram"; @kind: QEMU_VM_SECTION_START, _PART, _END. */
void speak_section(Out *out, const MemImage *image, unsigned kind);
void speak_section_end(Out *out, const MemImage *image);
/* @page_sizes: as post-copy wants to be told, or NULL. */
void speak_blocks(Out *out, const MemImage *image,
                  const uint64_t *page_sizes);

/* All up to the guest that runs, for post-copy. */
void speak_postcopy(Out *out, const MemImage *image,
                    const uint64_t *page_sizes);

/* For the recovery of one: asks for all bitmaps. */
void speak_bitmaps(Out *out, const MemImage *image);

/*
 * One page, of @page_size.  @last: the block that was spoken of before on this
 * connection, -1 at its beginning.  It goes as target pages, without a gap.
 */
void speak_page(Out *out, const MemImage *image, unsigned block, uint64_t page,
                uint64_t page_size, int *last);

#endif
