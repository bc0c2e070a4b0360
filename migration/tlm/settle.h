/*
 * TLM: asks the destination whether it has loaded all that was sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_SETTLE_H
#define TLM_SETTLE_H

#include "internal.h"

/* A migration begins.  BQL held. */
void tlm_settle_reset(void);
/*
 * @decision is to end the live stage.  True: not yet, the destination is to be
 * asked first.  Coordinator.
 */
bool tlm_settle_begin(TlmMigration *m, const TlmPlanDecision *decision);
/* Asks, if it is to be.  Coordinator, between two sections of the stream. */
void tlm_settle_ask(QEMUFile *f);
/*
 * Has it been asked?  Then waits for the answer, as long as the planner
 * permits.  An epoch in which nothing is sent; the guest runs.  Coordinator,
 * no locks.  0 or a negative errno.
 */
bool tlm_settle_asked(void);
int tlm_settle_wait(TlmMigration *m);
/*
 * After the next sync: has so little become dirty meanwhile that the decision
 * stands?  False: ask the planner again.  Coordinator.
 */
bool tlm_settle_stands(TlmMigration *m);
/* A pong of the destination's.  Return path thread. */
void tlm_settle_pong(TlmMigration *m, uint32_t value);

#endif
