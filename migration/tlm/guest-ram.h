/*
 * TLM: guest RAM and QEMU's dirty log, as the engine sees them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_GUEST_RAM_H
#define TLM_GUEST_RAM_H

#include "engine/engine.h"
#include "qemu-compat.h"

typedef struct TlmGuestRam {
    TlmEngine *engine;
    unsigned page_bits;
    GPtrArray *blocks;          /* RAMBlock, with a reference to its mr */
} TlmGuestRam;

extern const TlmRamOps tlm_guest_ram_ops;

void tlm_guest_ram_init(TlmGuestRam *ram);
/*
 * Gives all migrated blocks to @ram->engine.  BQL held, the bitmaps are
 * initialised.  False: there is not enough memory.
 */
bool tlm_guest_ram_add_blocks(TlmGuestRam *ram);
/* BQL held, after tlm_engine_stop().  Idempotent. */
void tlm_guest_ram_destroy(TlmGuestRam *ram);
/* Are the blocks the same as at setup?  Any thread, no locks. */
bool tlm_guest_ram_layout_unchanged(const TlmGuestRam *ram);
/* The guest does not use these pages; bitmap_mutex held */
void tlm_guest_ram_forget(TlmGuestRam *ram, RAMBlock *rb,
                          unsigned long first, unsigned long num);
/* populated-ram.c: see TlmRamOps.armed */
void tlm_guest_ram_skip_unpopulated(void *opaque, unsigned block,
                                    unsigned long first, unsigned long num);

#endif
