/*
 * TLM checkpoint: memory for copies
 *
 * Kernel pages that are faulted in during the pause cost ten times as much as
 * the copying.  So they are faulted in before, by a thread, beside the pass:
 * the address space is that of all of RAM, with memory where it is wanted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_ROOM_H
#define TLM_ROOM_H

#include "../guest-ram.h"

typedef struct TlmRoom TlmRoom;

/*
 * @limit: bytes of memory it may take at most; 0: none.  NULL with @why set:
 * there is no address space.  All functions: coordinator, outside of an epoch.
 */
TlmRoom *tlm_room_new(const TlmGuestRam *ram, uint64_t limit, GError **why);
/* Gives all of it back */
void tlm_room_free(TlmRoom *r);
/* UINT64_MAX: none */
uint64_t tlm_room_limit(const TlmRoom *r);
/* Others take so much of the limit (or give it back: negative) */
void tlm_room_share_limit(TlmRoom *r, int64_t bytes);
/* Where the copy of a block is, at the same offsets as the block */
void *tlm_room_host(const TlmRoom *r, unsigned block);
/* Bytes that can be owed, so that there is room for them with some to spare */
uint64_t tlm_room_capacity(const TlmRoom *r);
/* Begins to make room for pages that are hot, unless it is still at it */
void tlm_room_expect(TlmRoom *r);
/*
 * Makes room for all pages that are owed, and waits.  False with @why set: the
 * limit, or what the host has left, is too small.
 */
bool tlm_room_make(TlmRoom *r, GError **why);
/*
 * Takes nothing yet: may all that is owed get room, one part after the other?
 * False with @why set, as above.
 */
bool tlm_room_allows(TlmRoom *r, GError **why);
/*
 * Are the limit, and the host's and the cgroup's memory, enough if what is
 * owed now gets room, too?  False with @why set: they are not.
 */
bool tlm_room_fits(const TlmRoom *r, GError **why);
/*
 * Makes room for these pages now, where there is none.  Any thread; two of
 * them must not share a word of a bitmap of pages.
 */
void tlm_room_fault_in(TlmRoom *r, unsigned block, unsigned long first,
                       unsigned long num);
/* Gives back the pages, but for parts of huge pages at both ends */
void tlm_room_give_back(TlmRoom *r, unsigned block, unsigned long first,
                        unsigned long num);

#endif
