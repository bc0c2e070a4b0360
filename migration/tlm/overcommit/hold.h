/*
 * TLM: vCPU over-commit: the threads that are held
 *
 * TLM saves a thread's state before anything touches it.  It forgets the thread
 * only when the state is verified to be the saved one, or the thread has ended.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_HOLD_H
#define TLM_OVERCOMMIT_HOLD_H

#include "backend.h"

/*
 * Holds exactly the threads @tids on @cpus host CPUs by @backend.  If a backend
 * is in use, @backend must be that one.  After a failure threads may be as they
 * were, held, or half held.
 */
bool tlm_oc_hold(TlmOcHold *h, const TlmOcBackend *backend, const pid_t *tids,
                 size_t n, unsigned cpus, GError **errp);
/*
 * Puts all threads back, and then closes the backend: none is in use then.
 * Threads that may still be put right stay held, and are added to @errors.
 */
void tlm_oc_put_back_all(TlmOcHold *h, GString *errors);

#endif
