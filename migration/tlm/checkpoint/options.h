/*
 * TLM checkpoint: what was asked for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_CHECKPOINT_OPTIONS_H
#define TLM_CHECKPOINT_OPTIONS_H

#include "qapi/qapi-types-migration-tlm-checkpoint.h"

/*
 * Of the checkpoint that runs, or is about to start, with all defaults filled
 * in.  NULL: the migration is not a checkpoint.  Stays until all who want to
 * know of its end have been told.  BQL, or the coordinator.
 */
const MigrationTlmCheckpointOptions *tlm_checkpoint_options(void);
/* Takes @o, and frees what there was.  BQL held; no checkpoint runs */
void tlm_checkpoint_set_options(MigrationTlmCheckpointOptions *o);

#endif
