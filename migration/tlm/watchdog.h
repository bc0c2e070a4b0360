/*
 * TLM: watches for a migration that stands still, and for its bound
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_WATCHDOG_H
#define TLM_WATCHDOG_H

#include "internal.h"

/* The channels are set up; BQL held */
void tlm_watchdog_start(TlmMigration *m);
/*
 * The destination may own the guest from now on: the watchdog may still report
 * that the bound has passed, but not give up.  BQL held.
 */
void tlm_watchdog_commit(void);
/* Before the channels go; BQL held */
void tlm_watchdog_stop(void);
#endif
