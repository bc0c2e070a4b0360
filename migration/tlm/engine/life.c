/*
 * TLM engine: makes, wakes and ends the engine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "engine-int.h"

TlmEngine *tlm_engine_new(const TlmEngineConfig *config)
{
    TlmEngine *e = g_new0(TlmEngine, 1);

    e->c = *config;
    e->blocks = g_array_new(false, true, sizeof(TlmLedgerBlock));
    qemu_mutex_init(&e->lock);
    qemu_cond_init(&e->wake);
    qemu_cond_init(&e->done);
    tlm_pacer_init(&e->pacer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME),
                   e->c.sink_ops->sent(e->c.sink));
    return e;
}

bool tlm_engine_add_block(TlmEngine *e, unsigned long *dirty,
                          unsigned long pages, unsigned long chunk_pages)
{
    TlmLedgerBlock b;
    uint64_t owed;

    if (!tlm_ledger_block_init(&b, dirty, pages, chunk_pages)) {
        return false;
    }
    owed = tlm_ledger_owed(&b);
    e->total_pages += pages;
    stat64_add(&e->owed_pages, owed);
    /* Discarded pages (virtio-mem) are not owed from the start */
    stat64_add(&e->forgotten_pages, pages - owed);
    g_array_append_val(e->blocks, b);
    return true;
}

unsigned long tlm_engine_block_pages(const TlmEngine *e, unsigned block)
{
    return g_array_index(e->blocks, TlmLedgerBlock, block).pages;
}

void tlm_engine_start(TlmEngine *e)
{
    e->started = true;
    tlm_workers_start(e);
}

void tlm_engine_stop(TlmEngine *e)
{
    if (e->started) {
        tlm_workers_stop(e);
        e->started = false;
    }
    for (unsigned i = 0; i < e->blocks->len; i++) {
        tlm_ledger_block_destroy(tlm_engine_block(e, i));
    }
    g_array_set_size(e->blocks, 0);
}

void tlm_engine_free(TlmEngine *e)
{
    tlm_engine_stop(e);
    qemu_mutex_destroy(&e->lock);
    qemu_cond_destroy(&e->wake);
    qemu_cond_destroy(&e->done);
    g_array_free(e->blocks, true);
    g_free(e);
}

void tlm_engine_interrupt(TlmEngine *e)
{
    QEMU_LOCK_GUARD(&e->lock);
    e->interrupt = true;
    qemu_cond_broadcast(&e->done);
}

void tlm_engine_heed(TlmEngine *e)
{
    QEMU_LOCK_GUARD(&e->lock);
    e->interrupt = false;
}

void tlm_engine_cancel(TlmEngine *e)
{
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->cancelled = true;
        e->over = true;
        qemu_cond_broadcast(&e->wake);
        qemu_cond_broadcast(&e->done);
    }
    e->c.sink_ops->cancel(e->c.sink);
}

bool tlm_engine_cancelled(TlmEngine *e)
{
    QEMU_LOCK_GUARD(&e->lock);
    return e->cancelled;
}
