/*
 * TLM checkpoint: how the RAM that is owed in the pause stays as it was then
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_KEEP_H
#define TLM_KEEP_H

#include "qapi/qapi-types-migration-tlm.h"
#include "copies.h"

typedef struct TlmKeep TlmKeep;

/* @buffer: bytes of memory for copies at most; 0: no limit.  Never fails. */
TlmKeep *tlm_keep_new(const TlmGuestRam *ram, MigrationTlmCheckpointMode mode,
                      uint64_t buffer);
/* After the cleanup of the migration: nothing reads from the copies any more */
void tlm_keep_free(TlmKeep *k);

/* Coordinator, for all that follows.  Once an epoch, in the live stage. */
void tlm_keep_expect(TlmKeep *k);
/*
 * Bytes that can be owed, so that a pause before the end of the pass is of use.
 * 0: it never is, or there was less memory than it seemed.
 */
uint64_t tlm_keep_capacity(const TlmKeep *k);
/* Can what is owed be kept?  False: the pass has to go on */
bool tlm_keep_try(TlmKeep *k);
/*
 * The guest is about to be stopped, for @limit_ms if possible: chooses the
 * method.  Returns why it is not a better one; NULL if it is the best one.
 * The caller frees the string.
 */
char *tlm_keep_prepare(TlmKeep *k, uint64_t limit_ms);
/* Is there room for what is owed?  Else it has to be written in the pause. */
bool tlm_keep_ready(TlmKeep *k);
/* Why it is not */
const char *tlm_keep_why_not(const TlmKeep *k);
/*
 * Guest stopped, BQL held, the log read and armed: from now on the guest may
 * write to its RAM.
 */
MigrationTlmCheckpointMethod tlm_keep_take(TlmKeep *k);
/* The guest runs, no locks, for all that follows.  Before anything is sent */
void tlm_keep_begin(TlmKeep *k);
/*
 * Worker: where does it read the first *@num of these pages of @block, which
 * ascend?  Lessens *@num.
 */
RAMBlock *tlm_keep_source(TlmKeep *k, unsigned block,
                          const unsigned long *page, unsigned *num);
/*
 * After a flush: all pages that are not owed any more have been sent.  False:
 * a page may be lost, of the checkpoint, not of the guest.
 */
bool tlm_keep_sent(TlmKeep *k);
/* Lets the guest write everywhere.  Any thread. */
void tlm_keep_let_go(TlmKeep *k);
/* Bytes that were copied */
uint64_t tlm_keep_copied(const TlmKeep *k);
/* How fast copying is, in bytes/s; 0: not known */
uint64_t tlm_keep_rate(const TlmKeep *k);
/* How many writes of the guest have waited */
uint64_t tlm_keep_faults(const TlmKeep *k);

#endif
