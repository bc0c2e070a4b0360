/*
 * TLM engine: counts owed, forgotten and sent pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "engine-int.h"
#include "../trace.h"

/*
 * A destination discards each run of owed pages while the guest stands still,
 * at 2 to 3 us a run (measured).  More runs than this are not worth it: a page
 * more takes a link of 1 GB/s 4 us, and the guest runs meanwhile.
 */
#define RUNS_MAX  2000
/* No gap longer than this is filled: a run is cheaper */
#define GAP_MAX   32
/* Nor do the gaps make what is owed longer by more than one part in so many */
#define FILL_PART 8

/*
 * During a sync there may be more pages than were counted, as the sync has
 * just found some.
 */
void tlm_engine_owe_less(TlmEngine *e, unsigned long pages)
{
    uint64_t owed = stat64_get(&e->owed_pages);

    owed -= MIN(pages, owed);
    stat64_set(&e->owed_pages, owed);
    e->c.ram_ops->owed(e->c.ram, owed);
}

void tlm_engine_forget(TlmEngine *e, unsigned block, unsigned long first,
                       unsigned long num)
{
    unsigned long forgotten = tlm_ledger_forget(tlm_engine_block(e, block),
                                                first, num);

    tlm_engine_owe_less(e, forgotten);
    stat64_add(&e->forgotten_pages, forgotten);
}

unsigned long tlm_engine_next(TlmEngine *e, TlmTake what, unsigned block,
                              unsigned long *first, unsigned long end)
{
    return tlm_ledger_next(tlm_engine_block(e, block), what, first, end);
}

unsigned long tlm_engine_forget_clean(TlmEngine *e, unsigned block,
                                      unsigned long first,
                                      unsigned long num)
{
    unsigned long forgotten;

    e->c.ram_ops->lock(e->c.ram);
    forgotten = tlm_ledger_forget_clean(tlm_engine_block(e, block), first,
                                        num);
    tlm_engine_owe_less(e, forgotten);
    e->c.ram_ops->unlock(e->c.ram);
    stat64_add(&e->forgotten_pages, forgotten);
    e->counts.clean_unsent -= forgotten;
    return forgotten;
}

/* Fewer runs of owed pages, unless that costs too many pages */
static uint64_t fill_gaps(TlmEngine *e, uint64_t owed, uint64_t *runs)
{
    uint64_t filled = 0;

    for (unsigned long gap = 0; gap <= GAP_MAX; gap = gap ? gap * 2 : 1) {
        *runs = 0;
        for (unsigned i = 0; i < e->blocks->len; i++) {
            TlmLedgerBlock *b = tlm_engine_block(e, i);

            filled += gap ? tlm_ledger_fill_gaps(b, gap) : 0;
            *runs += tlm_ledger_runs(b);
        }
        if (*runs <= RUNS_MAX || filled > owed / FILL_PART) {
            break;
        }
    }
    return filled;
}

uint64_t tlm_engine_hand_over(TlmEngine *e)
{
    uint64_t revived = 0, owed = 0, filled, runs;

    e->c.ram_ops->lock(e->c.ram);
    for (unsigned i = 0; i < e->blocks->len; i++) {
        TlmLedgerBlock *b = tlm_engine_block(e, i);

        revived += tlm_ledger_revive(b);
        owed += tlm_ledger_owed(b);
    }
    filled = fill_gaps(e, owed, &runs);
    for (unsigned i = 0; i < e->blocks->len; i++) {
        tlm_ledger_give_back(tlm_engine_block(e, i));
    }
    owed += filled;
    stat64_set(&e->owed_pages, owed);
    stat64_set(&e->forgotten_pages, 0);
    e->c.ram_ops->owed(e->c.ram, owed);
    e->c.ram_ops->unlock(e->c.ram);
    trace_tlm_hand_over(revived, runs, filled, owed);
    return owed;
}

void tlm_engine_completed(TlmEngine *e, uint64_t rest)
{
    stat64_set(&e->rest_pages, rest);
    stat64_set(&e->owed_pages, 0);
}

uint64_t tlm_engine_owed(TlmEngine *e)
{
    return stat64_get(&e->owed_pages);
}

void tlm_engine_counters(TlmEngine *e, TlmEngineCounters *counters)
{
    *counters = (TlmEngineCounters) {
        .total = e->total_pages,
        .owed = stat64_get(&e->owed_pages),
        .passed = stat64_get(&e->passed_pages),
        .mtx = stat64_get(&e->mtx_pages),
        .dtx = stat64_get(&e->dtx_pages),
        .rest = stat64_get(&e->rest_pages),
        .forgotten = stat64_get(&e->forgotten_pages),
    };
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        counters->epochs = e->epoch;
    }
}
