/*
 * TLM: dtx, the dirty pages; and the rest of them once the guest is stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../internal.h"

/* One sweep over all blocks in an epoch */
static bool sweep(TlmTake what, TlmBatch *batch, unsigned max)
{
    while (tlm.sweep.block < tlm.nr_blocks) {
        TlmBlock *b = &tlm.blocks[tlm.sweep.block];

        batch->rb = b->rb;
        batch->num = tlm_ledger_take(&b->ledger, what, &tlm.sweep.page,
                                     b->ledger.pages, batch->page, max);
        if (batch->num) {
            return true;
        }
        tlm.sweep.block++;
        tlm.sweep.page = 0;
    }
    return false;
}

/*
 * A page that was written to a moment ago is likely to be written to
 * again: to send it now is to send it twice.  Settled pages go first; hot
 * ones only if the planner says that their time has come.
 */
bool tlm_pick_dirty(TlmBatch *batch, unsigned max)
{
    if (!tlm.dtx_on ||
        !sweep(tlm.send_hot ? TLM_TAKE_DIRTY : TLM_TAKE_SETTLED,
               batch, max)) {
        return false;
    }
    stat64_add(&tlm.dtx_pages, batch->num);
    return true;
}

/* Stage 3: whatever is owed */
bool tlm_pick_rest(TlmBatch *batch, unsigned max)
{
    if (tlm.stage != MIGRATION_TLM_STAGE_STOP ||
        !sweep(TLM_TAKE_ALL, batch, max)) {
        return false;
    }
    stat64_add(&tlm.stop_pages, batch->num);
    return true;
}
