/*
 * TLM checkpoint: owed pages are write-protected in the pause, and copied
 * after it
 *
 * The pause is as short as page tables are changed.  Then all that is owed is
 * copied, as fast as memory allows, and nobody waits for a disk or a network
 * to do so.  A write of the guest to a page that it has not come to waits
 * until that page, and those around it, are copied (userfaultfd).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PROTECT_H
#define TLM_PROTECT_H

#include "copies.h"

typedef struct TlmProtect TlmProtect;

/*
 * Coordinator, guest running.  NULL with @why set: the kernel or what writes
 * to this guest's RAM does not allow it.
 */
TlmProtect *tlm_protect_new(const TlmGuestRam *ram, TlmCopies *copies,
                            GError **why);
/*
 * Guest stopped, BQL held.  Hot pages are copied, up to @budget bytes of them;
 * the rest is protected.  False: it has not worked, and nothing is protected.
 */
bool tlm_protect_take(TlmProtect *p, uint64_t budget);
/* Were hot pages copied in the pause? */
bool tlm_protect_mixed(const TlmProtect *p);
/* Guest running, coordinator, no locks: begins to copy */
void tlm_protect_begin(TlmProtect *p);
/*
 * A worker sends these pages of @block, which ascend: where does it read the
 * first *@num of them?  Lessens *@num.  What it reads stays until
 * tlm_protect_sent().
 */
RAMBlock *tlm_protect_source(TlmProtect *p, unsigned block,
                             const unsigned long *page, unsigned *num);
/*
 * Coordinator, no locks, after a flush: all pages that are not owed any more
 * have been sent.  False: a page may be lost, of the checkpoint, not of the
 * guest.
 */
bool tlm_protect_sent(TlmProtect *p);
/* How many writes of the guest have waited */
uint64_t tlm_protect_faults(const TlmProtect *p);
/* Lets the guest write everywhere, in any case */
void tlm_protect_end(TlmProtect *p);
/* The same; nothing is read any more from where tlm_protect_source() said */
void tlm_protect_free(TlmProtect *p);

#endif
