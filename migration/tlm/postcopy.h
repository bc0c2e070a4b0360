/*
 * TLM: the end of a migration by post-copy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_POSTCOPY_H
#define TLM_POSTCOPY_H

#include "internal.h"

/*
 * Does the user want post-copy, by parameter or by "migrate-start-postcopy",
 * when the pass is over?  Any thread.
 */
bool tlm_postcopy_wanted(void);
/*
 * False with @errp set: the settings ask for a post-copy that they, or this
 * QEMU, do not permit.  BQL held, before the start.
 */
bool tlm_postcopy_check(Error **errp);
/*
 * Waits until the destination has loaded all that was sent, so that it can
 * start the guest at once.  Gives up after a while.  Coordinator, between two
 * sections of the stream, no locks; the guest runs.  False: the migration has
 * been cancelled or is broken.
 */
bool tlm_postcopy_settle(TlmMigration *m, QEMUFile *f);
/* Wakes up tlm_postcopy_settle().  Any thread. */
void tlm_postcopy_wake(void);
/* A pong of the destination's.  Return path thread. */
void tlm_postcopy_pong(TlmMigration *m, uint32_t value);
/* info.c; BQL and lock of @m held.  NULL: it has not come to that. */
MigrationTlmPostcopy *tlm_postcopy_info(const TlmMigration *m,
                                        int64_t now_ns);
/* us from the stop until the destination had the guest; 0: not known yet */
uint64_t tlm_postcopy_downtime_us(const TlmMigration *m);

#endif
