/*
 * TLM checkpoint: memory for parts of RAM that are about to be sent
 *
 * It is small, and used again when what it holds has been sent: no memory has
 * to be faulted in for it, which costs several times as much as the copying.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_SLOTS_H
#define TLM_SLOTS_H

#include "../qemu-compat.h"

typedef struct TlmSlots TlmSlots;

/* Their number at most */
#define TLM_SLOTS_MAX 32

/* @num slots of @bytes each.  NULL: there is no memory. */
TlmSlots *tlm_slots_new(unsigned num, size_t bytes);
void tlm_slots_free(TlmSlots *s);

/* A slot for what is at @offset of @rb; -1: none is free.  Any thread. */
int tlm_slots_take(TlmSlots *s, const RAMBlock *rb, ram_addr_t offset);
/* As @rb, but at these offsets it holds what was copied into the slot */
RAMBlock *tlm_slots_block(TlmSlots *s, int slot);
/* Nothing is read from it any more.  Any thread. */
void tlm_slots_give_back(TlmSlots *s, int slot);

#endif
