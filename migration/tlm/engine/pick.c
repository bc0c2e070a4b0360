/*
 * TLM engine: which pages a worker takes next
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "engine-int.h"

/*
 * mtx: the pass over all RAM, first page to last.  The cursor never moves
 * backwards, so mtx looks at every page once.  It leaves dirty pages to dtx.
 * Returns false at the end of RAM, where the epoch makes mtx halt, and in front
 * of a chunk whose dirty log is not armed.  The coordinator does what is
 * needed there before the next epoch.
 */
bool tlm_pick_walk(TlmEngine *e, TlmBatch *batch, unsigned max)
{
    while (e->walk.block < e->blocks->len) {
        TlmLedgerBlock *b = tlm_engine_block(e, e->walk.block);
        unsigned long before = e->walk.page;
        uint64_t left = e->now.walk_end - stat64_get(&e->passed_pages);

        batch->block = e->walk.block;
        batch->num = tlm_ledger_take(b, TLM_TAKE_CLEAN, &e->walk.page,
                                     MIN(before + left, b->pages),
                                     batch->page, max);
        stat64_add(&e->passed_pages, e->walk.page - before);
        stat64_add(&e->mtx_pages, batch->num);
        if (batch->num) {
            return true;
        }
        if (e->walk.page < b->pages) {
            return false;
        }
        e->walk.block++;
        e->walk.page = 0;
    }
    return false;
}

/* Makes one sweep over all blocks in an epoch */
static bool sweep(TlmEngine *e, TlmTake what, TlmBatch *batch, unsigned max)
{
    while (e->sweep.block < e->blocks->len) {
        TlmLedgerBlock *b = tlm_engine_block(e, e->sweep.block);

        batch->block = e->sweep.block;
        batch->num = tlm_ledger_take(b, what, &e->sweep.page, b->pages,
                                     batch->page, max);
        if (batch->num) {
            return true;
        }
        e->sweep.block++;
        e->sweep.page = 0;
    }
    return false;
}

/*
 * dtx: the dirty pages.  The guest is likely to write again to a page that it
 * wrote to a moment ago, and the page would be sent twice.  So settled pages
 * go first, and hot ones only if the planner says so.
 */
bool tlm_pick_dirty(TlmEngine *e, TlmBatch *batch, unsigned max)
{
    if (!e->now.dtx ||
        !sweep(e, e->now.hot ? TLM_TAKE_DIRTY : TLM_TAKE_SETTLED, batch,
               max)) {
        return false;
    }
    stat64_add(&e->dtx_pages, batch->num);
    return true;
}

/* Both workers, once the guest has been stopped: all owed pages */
bool tlm_pick_rest(TlmEngine *e, TlmBatch *batch, unsigned max)
{
    if (!e->rest || !sweep(e, TLM_TAKE_ALL, batch, max)) {
        return false;
    }
    stat64_add(&e->rest_pages, batch->num);
    return true;
}
