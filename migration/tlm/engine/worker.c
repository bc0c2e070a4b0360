/*
 * TLM: the two threads, mtx and dtx
 *
 * A worker takes batches of pages from the ledger and queues them on its
 * own group of multifd channels, from the start of an epoch until there
 * is no more work or the epoch is over.  Each has its own kind of work;
 * when that runs out it helps the other, so that no channel idles while
 * there is something to send.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "../internal.h"
#include "../trace.h"

static const TlmPick mtx_work[] = {
    tlm_pick_rest, tlm_pick_walk, tlm_pick_dirty, NULL
};
static const TlmPick dtx_work[] = {
    tlm_pick_rest, tlm_pick_dirty, tlm_pick_walk, NULL
};

unsigned tlm_channel_group(unsigned id, unsigned channels)
{
    unsigned dtx = migrate_get_current()->parameters.tlm_dtx_channels;

    if (!migrate_tlm()) {
        return TLM_MTX;
    }
    if (!dtx) {
        dtx = MAX(1, channels / 4);
    }
    /* It was checked when the migration began, but may have been changed */
    dtx = MIN(dtx, channels - 1);
    return id < channels - dtx ? TLM_MTX : TLM_DTX;
}

/* Waits until the bandwidth cap allows another batch.  False: stop. */
static bool worker_pace(unsigned *max)
{
    QEMU_LOCK_GUARD(&tlm.lock);

    while (!tlm.epoch_over) {
        int64_t wait = 0;

        if (tlm.stage != MIGRATION_TLM_STAGE_STOP) {
            /* max-bandwidth may be changed at any time */
            tlm_pacer_set_rate(&tlm.pacer, migrate_max_bandwidth(),
                               migrate_multifd_channels());
            wait = tlm_pacer_wait_ns(&tlm.pacer,
                                     qemu_clock_get_ns(QEMU_CLOCK_REALTIME),
                                     migration_transferred_bytes());
        }
        if (!wait) {
            *max = tlm.stage == MIGRATION_TLM_STAGE_STOP ?
                   multifd_ram_page_count() : tlm.batch_pages;
            return true;
        }
        qemu_cond_timedwait(&tlm.wake, &tlm.lock,
                            MAX(1, wait / SCALE_MS));
    }
    return false;
}

static bool worker_pick(const TlmWorker *w, TlmBatch *batch, unsigned max)
{
    QEMU_LOCK_GUARD(ram_bitmap_mutex());

    for (const TlmPick *pick = w->pick; *pick; pick++) {
        if ((*pick)(batch, max)) {
            tlm_owe_less(batch->num);
            return true;
        }
        if (tlm.stage == MIGRATION_TLM_STAGE_STOP) {
            break;              /* the first of them was all there is */
        }
    }
    return false;
}

/* Blocks until a channel of the group is free.  False: it is broken. */
static bool worker_send(TlmWorker *w, const TlmBatch *batch)
{
    MultiFDPages_t *pages = &w->data->u.ram;
    bool sent;

    multifd_set_payload_type(w->data, MULTIFD_PAYLOAD_RAM);
    pages->block = batch->rb;
    pages->num = batch->num;
    pages->normal_num = 0;
    for (unsigned i = 0; i < batch->num; i++) {
        pages->offset[i] = (ram_addr_t)batch->page[i] << tlm.page_bits;
    }
    tlm_sending_begin();
    sent = multifd_send_group(&w->data, w->group);
    tlm_sending_end();
    return sent;
}

static void worker_epoch(TlmWorker *w)
{
    TlmBatch batch = { .page = w->page };
    unsigned max;

    while (worker_pace(&max) && worker_pick(w, &batch, max)) {
        trace_tlm_batch(w->name, batch.rb->idstr, batch.page[0], batch.num);
        if (!worker_send(w, &batch)) {
            QEMU_LOCK_GUARD(&tlm.lock);
            tlm.failed = true;
            tlm.epoch_over = true;
            qemu_cond_broadcast(&tlm.wake);
            return;
        }
    }
}

static void *worker_thread(void *opaque)
{
    TlmWorker *w = opaque;
    MigrationThread *info = migration_threads_add(w->name,
                                                  qemu_get_thread_id());

    rcu_register_thread();
    qemu_mutex_lock(&tlm.lock);
    while (true) {
        while (!tlm.quit && w->epoch == tlm.epoch) {
            qemu_cond_wait(&tlm.wake, &tlm.lock);
        }
        if (tlm.quit) {
            break;
        }
        w->epoch = tlm.epoch;
        qemu_mutex_unlock(&tlm.lock);
        worker_epoch(w);
        qemu_mutex_lock(&tlm.lock);
        tlm.busy--;
        qemu_cond_signal(&tlm.done);
    }
    qemu_mutex_unlock(&tlm.lock);
    rcu_unregister_thread();
    migration_threads_remove(info);
    return NULL;
}

/* Called with the BQL held, no epoch running */
void tlm_workers_start(void)
{
    static const char *const names[TLM_WORKERS] = {
        [TLM_MTX] = "mig/src/mtx", [TLM_DTX] = "mig/src/dtx",
    };
    static const TlmPick *const work[TLM_WORKERS] = {
        [TLM_MTX] = mtx_work, [TLM_DTX] = dtx_work,
    };

    for (unsigned i = 0; i < TLM_WORKERS; i++) {
        TlmWorker *w = &tlm.worker[i];

        *w = (TlmWorker) {
            .name = names[i],
            .group = i,
            .pick = work[i],
            .data = multifd_send_data_alloc(),
            .page = g_new(unsigned long, multifd_ram_page_count()),
        };
        qemu_thread_create(&w->thread, w->name, worker_thread, w,
                           QEMU_THREAD_JOINABLE);
    }
}

/*
 * Called with the BQL held, when the coordinator has ended: no epoch is
 * running, and the workers, which never take the BQL, do not block.
 */
void tlm_workers_stop(void)
{
    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        tlm.quit = true;
        qemu_cond_broadcast(&tlm.wake);
    }
    for (unsigned i = 0; i < TLM_WORKERS; i++) {
        TlmWorker *w = &tlm.worker[i];

        qemu_thread_join(&w->thread);
        g_clear_pointer(&w->data, multifd_send_data_free);
        g_clear_pointer(&w->page, g_free);
    }
}
