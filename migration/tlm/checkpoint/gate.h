/*
 * TLM checkpoint: the wait for the manager, with the guest stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_GATE_H
#define TLM_GATE_H

#include "migration/migration.h"

/*
 * With capability 'pause-before-switchover', waits for "migrate-continue".
 * @timeout_ms: as long at most; 0: without end.  Coordinator, the guest is
 * stopped; BQL held, and dropped meanwhile.  False: the checkpoint is
 * cancelled, or has failed because nobody came in time.
 */
bool tlm_gate_pass(MigrationState *s, uint64_t timeout_ms);

#endif
