/*
 * TLM checkpoint: copies of the pages that are owed when the guest is paused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_COPIES_H
#define TLM_COPIES_H

#include "../guest-ram.h"

typedef struct TlmCopies TlmCopies;

/*
 * Coordinator, at the beginning of the live stage.  @limit: bytes of memory
 * that they may take at most; 0: no limit.  NULL with @why set: there is no
 * address space for them.
 */
TlmCopies *tlm_copies_new(const TlmGuestRam *ram, uint64_t limit,
                          GError **why);
/* Bytes that can be owed, so that there is room for them with some to spare */
uint64_t tlm_copies_capacity(const TlmCopies *c);
/* In the live stage: begins to make room for what is likely to be owed */
void tlm_copies_expect(TlmCopies *c);
/*
 * The guest is about to be stopped: makes room for what is owed.  False with
 * @why set: that is more than the limit, or than the host has.
 */
bool tlm_copies_prepare(TlmCopies *c, GError **why);
/*
 * Takes nothing yet: may all that is owed be copied, one part after the other?
 * False with @why set, as above.
 */
bool tlm_copies_allowed(TlmCopies *c, GError **why);
/*
 * How fast they will be made, in bytes/ms.  Measured when prepared, with the
 * guest running, so it is rather more in the pause.  0: too few are owed to
 * tell.
 */
double tlm_copies_rate(const TlmCopies *c);
/*
 * Is there memory for the pages that are owed now?  False with @why set: they
 * have become too many.
 */
bool tlm_copies_fit(const TlmCopies *c, GError **why);
/* Guest stopped: copies all pages that are owed */
void tlm_copies_take(TlmCopies *c);
/*
 * In several threads at once: calls @work for each part of RAM that may hold
 * owed pages.  No part shares a word of a bitmap of pages with another.
 */
void tlm_copies_share(TlmCopies *c, void (*work)(void *opaque, unsigned block,
                                                 unsigned long first,
                                                 unsigned long end),
                      void *opaque);
/* Copies these pages now; any thread, each page by one of them */
void tlm_copies_copy(TlmCopies *c, unsigned block, unsigned long first,
                     unsigned long num);
/* The same, but to where a block of RAM is that holds them at these offsets */
void tlm_copies_copy_to(TlmCopies *c, RAMBlock *to, unsigned block,
                        unsigned long first, unsigned long num);
/* Bytes of memory that they may take at most; UINT64_MAX: no limit */
uint64_t tlm_copies_limit(const TlmCopies *c);
/* Others take so much of it (or give it back: negative) */
void tlm_copies_share_limit(TlmCopies *c, int64_t bytes);
/* Block @i as it was when they were made */
const RAMBlock *tlm_copies_guest(const TlmCopies *c, unsigned i);
/* Of block @i: as the guest's, but what it holds are the copies */
RAMBlock *tlm_copies_block(const TlmCopies *c, unsigned i);
/* Copied so far */
uint64_t tlm_copies_bytes(TlmCopies *c);
/* After a flush: gives back the memory of copies that have been sent */
void tlm_copies_release(TlmCopies *c);
/* When nothing is read from them any more */
void tlm_copies_free(TlmCopies *c);

#endif
