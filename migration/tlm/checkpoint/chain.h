/*
 * TLM checkpoint: which pages have changed since an earlier one
 *
 * tlm.h has what QEMU's other files call.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_CHECKPOINT_CHAIN_H
#define TLM_CHECKPOINT_CHAIN_H

#include "qapi/qapi-types-migration-tlm.h"

/* False: generations cannot be told apart in this machine; BQL held */
bool tlm_chain_possible(Error **errp);
/*
 * The checkpoint that is about to start is to have children if @keep, and is to
 * be one of generation @parent if not NULL.  BQL held.
 */
void tlm_chain_ask(bool keep, const char *parent);
/* It has ended, @good or bad; BQL held */
void tlm_chain_done(bool good);
/* BQL held */
void tlm_chain_info(MigrationTlmCheckpoint *info, bool completed);

#endif
