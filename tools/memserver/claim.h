/*
 * A claim: that the client that wants a checkpoint is still there
 *
 * A checkpoint of level "protected" is there when all its pieces are, which
 * are at different servers.  Only the client knows.  Until it has said so at
 * each server ("settle"), its pieces are tentative: they have a claim, which is
 * over when the client's control connection is.
 *
 *   claimed -> ready -> settled
 *
 * The client says at all servers that the pieces are ready, and then, again at
 * all, that they are settled.  So:
 * - What is claimed when the client goes is of a set that nobody was told to
 *   be saved, and of which nothing is settled: the server removes it.
 * - What is ready then may be of a set of which others are settled.  It stays,
 *   as abandoned.  If no piece of the set is settled, the set was never said
 *   to be saved: the next "tlm memserver prune" or "save" removes it.
 * - If it was said to be saved, each piece is settled.
 *
 * Any thread may call these.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CLAIM_H
#define MEMSERVER_CLAIM_H

#include <glib.h>
#include <stdbool.h>

typedef struct Claim Claim;

Claim *claim_new(void);
Claim *claim_ref(Claim *c);             /* NULL: NULL */
void claim_unref(Claim *c);

/* The client has gone. */
void claim_end(Claim *c);
bool claim_is_over(const Claim *c);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Claim, claim_unref)

#endif
