/*
 * TLM checkpoint: a migration after which the guest goes on here
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_CHECKPOINT_H
#define TLM_CHECKPOINT_H

#include "../internal.h"

/*
 * The migration that runs, or is about to start, is a checkpoint.  Stays until
 * all who want to know of its end have been told.  BQL held to write.
 */
bool tlm_checkpoint_asked(void);
/* Before the guest is paused: coordinator, no locks */
void tlm_checkpoint_prepare(TlmMigration *m);
/*
 * In place of migration.c's completion: pauses the guest, lets it go on, and
 * writes what was left.  Coordinator, no locks.  0, or a negative errno: the
 * guest goes on in any case.
 */
int tlm_checkpoint_complete(TlmMigration *m, MigrationState *s);

#endif
