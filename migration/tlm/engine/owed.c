/*
 * TLM engine: counts owed, forgotten and sent pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "engine-int.h"

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
