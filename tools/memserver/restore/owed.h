/*
 * Which pages QEMU still lacks
 *
 * The unit is the host page of QEMU's RAM block.  A page is taken when it is
 * put into a message, and then never again: QEMU cannot place one twice.
 * Pages that are zero are owed only to those who ask: at the end the kernel
 * makes zeros of what is missing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_OWED_H
#define RESTORE_OWED_H

#include "image.h"

typedef struct Owed Owed;

typedef enum OwedKind {
    OWED_NOT,                           /* taken, or QEMU has it */
    OWED_DATA,
    OWED_ZERO,
} OwedKind;

/* @page_sizes: QEMU's, by block. */
Owed *owed_new(const MemImage *image, const uint64_t *page_sizes,
               GError **errp);
void owed_free(Owed *o);

uint64_t owed_page_size(const Owed *o, unsigned block);
/* Host pages of the block */
uint64_t owed_pages(const Owed *o, unsigned block);

/* Bytes of owed pages with data. */
uint64_t owed_left(const Owed *o);

OwedKind owed_kind(const Owed *o, unsigned block, uint64_t page);
OwedKind owed_take(Owed *o, unsigned block, uint64_t page);

/*
 * The next page with data, from this one on, over all blocks and from the
 * beginning again.  Returns false if there is none.
 */
bool owed_next(const Owed *o, unsigned *block, uint64_t *page);

/* QEMU has these: a bit for 4096 bytes, the lowest bit of a byte first. */
void owed_received(Owed *o, unsigned block, const uint8_t *bitmap);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Owed, owed_free)

#endif
