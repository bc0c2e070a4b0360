/*
 * TLM: vCPU over-commit: the threads that are held
 *
 * A thread is saved before anything touches it, and forgotten only when it
 * has been verified equal to that, or has ended.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_HOLD_H
#define TLM_OVERCOMMIT_HOLD_H

#include "backend.h"

/*
 * Holds exactly the threads @tids on @cpus host CPUs by @backend, which is the
 * one in use, if any.  If it fails, threads may be left as they were, held, or
 * half held.
 */
bool tlm_oc_hold(TlmOcHold *h, const TlmOcBackend *backend, const pid_t *tids,
                 size_t n, unsigned cpus, GError **errp);
/*
 * Puts all threads back, and then closes the backend: none is in use then.
 * What may still be put right is added to @errors, and stays held.
 */
void tlm_oc_put_back_all(TlmOcHold *h, GString *errors);

#endif
