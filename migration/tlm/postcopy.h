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
/* A pong of the destination's.  Return path thread. */
void tlm_postcopy_pong(TlmMigration *m, uint32_t value);
/* info.c; BQL and lock of @m held.  NULL: it has not come to that. */
MigrationTlmPostcopy *tlm_postcopy_info(const TlmMigration *m,
                                        int64_t now_ns);
/* us from the stop until the destination had the guest; 0: not known yet */
uint64_t tlm_postcopy_downtime_us(const TlmMigration *m);

#endif
