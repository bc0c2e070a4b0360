/*
 * Ranks: in which epoch each page has come to this server
 *
 * The rank of a page is 0 if it is not here, 1 if the parent has it, else 2 +
 * the number of SYNCs that its channel had had.  A source sends a page again
 * only after a SYNC on all channels, so among the servers of a set the highest
 * rank is the newest.
 * Only sets have them: 4 bytes for each page, until the checkpoint is merged.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_RANKS_H
#define MEMSERVER_RANKS_H

#include "generation.h"
#include "multifd.h"
#include "peer-proto.h"

typedef struct Ranks Ranks;

/* @layout is copied. */
Ranks *ranks_new(const Layout *layout, GError **errp);
void ranks_free(Ranks *r);

/*
 * The pages of packet @p, which are in @block, have come after @syncs.  Threads
 * of several channels may call it at once for different pages.
 */
bool ranks_note(Ranks *r, unsigned block, const MultifdPacket *p,
                uint64_t syncs, GError **errp);

/*
 * Pages of @parent that have not come are here, too.  The layout is the same,
 * and no channel writes any more.
 */
void ranks_inherit(Ranks *r, const Generation *parent);

/* One for each page of a block. */
const uint32_t *ranks_block(const Ranks *r, unsigned block);

/*
 * Calls @runs for all pages of all blocks, in their order, with runs that
 * cover all of them.  No channel writes any more.
 */
typedef bool RanksRuns(void *opaque, unsigned block, uint64_t first,
                       const PeerRun *runs, unsigned count, GError **errp);
bool ranks_for_each(const Ranks *r, RanksRuns *runs, void *opaque,
                    GError **errp);

/*
 * How far a list of all pages of all blocks has come, which comes in pieces
 * and in order.
 */
typedef struct PageCursor {
    unsigned block;
    uint64_t page;
} PageCursor;

/* @count pages from @first follow; returns false if these do not come next. */
bool page_cursor_move(PageCursor *c, const Layout *l, unsigned block,
                      uint64_t first, uint64_t count, GError **errp);
bool page_cursor_at_end(const PageCursor *c, const Layout *l);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ranks, ranks_free)

#endif
