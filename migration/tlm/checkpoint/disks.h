/*
 * TLM checkpoint: the disks go on in overlays, from the same moment as RAM
 *
 * BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_DISKS_H
#define TLM_DISKS_H

#include "qapi/qapi-types-block-core.h"

/* Can this be done?  False with @errp set. */
bool tlm_disks_check(BlockdevSnapshotList *disks, Error **errp);
/*
 * The guest stands still, and the main loop waits: puts the overlays on the
 * disks, all of them or none.  False with @errp set.
 */
bool tlm_disks_switch(BlockdevSnapshotList *disks, Error **errp);

#endif
