/*
 * TLM checkpoint: a migration after which the guest goes on here
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_CHECKPOINT_H
#define TLM_CHECKPOINT_H

#include "../internal.h"

/* Once an epoch, before the pause: coordinator, no locks */
void tlm_checkpoint_live(TlmMigration *m);
/* Bytes that can be kept in memory, rather than sent before the pause */
uint64_t tlm_checkpoint_capacity(void);
/* Can all that is owed be kept?  False: the pass has to go on */
bool tlm_checkpoint_try(void);
/* Before the guest is paused: coordinator, no locks */
void tlm_checkpoint_prepare(TlmMigration *m);
/*
 * In place of migration.c's completion: pauses the guest, lets it go on, and
 * writes what was left.  Coordinator, no locks.  0, or a negative errno: the
 * guest goes on in any case.
 */
int tlm_checkpoint_complete(TlmMigration *m, MigrationState *s);
/* After the end, when nobody reads from the copies any more; BQL held */
void tlm_checkpoint_cleanup(void);

#endif
