/*
 * TLM: mtx, the pass over all RAM, first page to last
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../internal.h"

/*
 * The cursor never moves backwards, so that mtx looks at every page once.
 * What is dirty when it comes by is left to dtx.  Returns false at the end
 * of RAM, where the over-commit schedule has a step, and in front of a
 * chunk whose dirty log is not armed: the coordinator takes the step, or
 * arms the chunk, before the next epoch.
 */
bool tlm_pick_walk(TlmBatch *batch, unsigned max)
{
    while (tlm.walk.block < tlm.nr_blocks) {
        TlmBlock *b = &tlm.blocks[tlm.walk.block];
        unsigned long before = tlm.walk.page;
        uint64_t left = tlm.walk_end - stat64_get(&tlm.passed_pages);

        batch->rb = b->rb;
        batch->num = tlm_ledger_take(&b->ledger, TLM_TAKE_CLEAN,
                                     &tlm.walk.page,
                                     MIN(before + left, b->ledger.pages),
                                     batch->page, max);
        stat64_add(&tlm.passed_pages, tlm.walk.page - before);
        stat64_add(&tlm.mtx_pages, batch->num);
        if (batch->num) {
            return true;
        }
        if (tlm.walk.page < b->ledger.pages) {
            return false;
        }
        tlm.walk.block++;
        tlm.walk.page = 0;
    }
    return false;
}
