/*
 * TLM checkpoint: copies of the pages that are owed when the guest is paused
 *
 * The memory for them is reserved for all of RAM, and faulted in, while the
 * guest runs, for what is owed then: in the pause it is only written to.
 * Kernel pages that are faulted in during the pause cost ten times as much as
 * the copying.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_COPIES_H
#define TLM_COPIES_H

#include "../guest-ram.h"

typedef struct TlmCopies TlmCopies;

/*
 * Coordinator, guest running, outside of an epoch.  @limit: bytes that may be
 * owed at most; 0: none.  Returns NULL, with @why set, if they are more or if
 * the host has not enough memory: nothing is reserved then.
 */
TlmCopies *tlm_copies_new(const TlmGuestRam *ram, uint64_t limit,
                          GError **why);
/* Have the pages that are owed not become more than the limit? */
bool tlm_copies_fit(const TlmCopies *c);
/* Guest stopped: copies all pages that are owed */
void tlm_copies_take(TlmCopies *c);
/* Copies these pages now; any thread, each page by one of them */
void tlm_copies_copy(TlmCopies *c, unsigned block, unsigned long first,
                     unsigned long num);
/* Of block @i: as the guest's, but what it holds are the copies */
RAMBlock *tlm_copies_block(const TlmCopies *c, unsigned i);
/* Copied so far */
uint64_t tlm_copies_bytes(const TlmCopies *c);
/* When nothing is read from them any more */
void tlm_copies_free(TlmCopies *c);

#endif
