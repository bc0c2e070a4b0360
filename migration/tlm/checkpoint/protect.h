/*
 * TLM checkpoint: owed pages are write-protected in the pause, and copied
 * after it
 *
 * The pause is as short as page tables are changed.  Then a thread copies all
 * that is owed, as fast as memory allows, and never waits for a disk or a
 * network.  A write of the guest to a page that it has not come to waits
 * until that one page is copied (userfaultfd).
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
 * Guest stopped, BQL held.  False: it has not worked, and nothing is
 * protected.
 */
bool tlm_protect_take(TlmProtect *p);
/*
 * Guest running, coordinator, no locks: returns when all is copied and nothing
 * is protected any more.  False: a page may be lost, of the checkpoint, not of
 * the guest.
 */
bool tlm_protect_copy(TlmProtect *p);
/* How many writes of the guest have waited */
uint64_t tlm_protect_faults(const TlmProtect *p);
/* Lets the guest write everywhere, in any case */
void tlm_protect_free(TlmProtect *p);

#endif
