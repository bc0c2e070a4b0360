/*
 * TLM checkpoint: what was asked for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "options.h"

/* BQL to write; the coordinator reads while a checkpoint runs */
static MigrationTlmCheckpointOptions *options;

const MigrationTlmCheckpointOptions *tlm_checkpoint_options(void)
{
    return options;
}

void tlm_checkpoint_set_options(MigrationTlmCheckpointOptions *o)
{
    qapi_free_MigrationTlmCheckpointOptions(options);
    options = o;
}
