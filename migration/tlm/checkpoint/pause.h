/*
 * TLM checkpoint: stops the guest for a moment, and lets it go on
 *
 * All functions are the coordinator's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PAUSE_H
#define TLM_PAUSE_H

#include "migration/migration.h"

/* No locks; afterwards the BQL is held, and the main loop waits */
void tlm_pause_take_bql(void);
/* The other way round */
void tlm_pause_drop_bql(void);

/*
 * The others: BQL held.  Stops the guest, if it runs.  0, or a negative errno
 * of the disks' flush.
 */
int tlm_pause_begin(void);
/*
 * Has the guest stood still since?  If not, RAM, devices and disks are not of
 * one moment: the checkpoint fails, 0 or a negative errno.
 */
int tlm_pause_check(MigrationState *s);
/* The guest goes on as before, unless somebody has stopped it meanwhile */
void tlm_pause_end(void);

#endif
