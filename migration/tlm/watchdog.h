/*
 * TLM: looks after a migration that stands still, and after its bound
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_WATCHDOG_H
#define TLM_WATCHDOG_H

#include "internal.h"

/* The channels are set up; BQL held */
void tlm_watchdog_start(TlmMigration *m);
/*
 * The destination may own the guest from now on: what is left is to tell,
 * not to give up.  BQL held.
 */
void tlm_watchdog_commit(void);
/* Before the channels go; BQL held */
void tlm_watchdog_stop(void);
#endif
