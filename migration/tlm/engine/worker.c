/*
 * TLM engine: the two threads, mtx and dtx
 *
 * A worker takes batches of pages from the ledger and hands them to its own
 * group of lanes, from the start of an epoch until there is no more work or
 * the epoch is over.  Each worker has its own kind of work.  When that runs
 * out it helps the other, so no lane idles while there is a page to send.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "engine-int.h"

const char *const tlm_group_names[TLM_WORKERS] = {
    [TLM_MTX] = "mig/src/mtx",
    [TLM_DTX] = "mig/src/dtx",
};

static const TlmPick mtx_work[] = {
    tlm_pick_rest, tlm_pick_walk, tlm_pick_dirty, NULL
};
static const TlmPick dtx_work[] = {
    tlm_pick_rest, tlm_pick_dirty, tlm_pick_walk, NULL
};

/* Waits until the bandwidth cap allows another batch.  False: stop. */
static bool worker_pace(TlmEngine *e, unsigned *max)
{
    QEMU_LOCK_GUARD(&e->lock);

    while (!e->over) {
        int64_t wait = 0;

        if (!e->uncapped) {
            /* The cap may be changed at any time */
            tlm_pacer_set_rate(&e->pacer, e->c.sink_ops->max_rate(e->c.sink),
                               e->c.sink_ops->lanes(e->c.sink));
            wait = tlm_pacer_wait_ns(&e->pacer,
                                     qemu_clock_get_ns(QEMU_CLOCK_REALTIME),
                                     e->c.sink_ops->sent(e->c.sink));
        }
        if (!wait) {
            *max = e->uncapped ? e->c.batch_max : e->batch_pages;
            return true;
        }
        qemu_cond_timedwait(&e->wake, &e->lock, MAX(1, wait / SCALE_MS));
    }
    return false;
}

static bool worker_pick(const TlmWorker *w, TlmBatch *batch, unsigned max)
{
    TlmEngine *e = w->engine;
    bool found = false;

    e->c.ram_ops->lock(e->c.ram);
    for (const TlmPick *pick = w->pick; *pick && !found; pick++) {
        found = (*pick)(e, batch, max);
        if (e->rest) {
            break;              /* the first of them was all there is */
        }
    }
    if (found) {
        tlm_engine_owe_less(e, batch->num);
    }
    e->c.ram_ops->unlock(e->c.ram);
    return found;
}

static void worker_epoch(TlmWorker *w)
{
    TlmEngine *e = w->engine;
    TlmBatch batch = { .page = w->page };
    unsigned max;

    while (worker_pace(e, &max) && worker_pick(w, &batch, max)) {
        if (!e->c.sink_ops->send(e->c.sink, w->group, &batch)) {
            QEMU_LOCK_GUARD(&e->lock);
            e->failed = true;
            e->over = true;
            qemu_cond_broadcast(&e->wake);
            return;
        }
    }
}

static void *worker_thread(void *opaque)
{
    TlmWorker *w = opaque;
    TlmEngine *e = w->engine;
    void *thread = NULL;

    if (e->c.ram_ops->thread_begin) {
        thread = e->c.ram_ops->thread_begin(e->c.ram,
                                            tlm_group_names[w->group]);
    }
    qemu_mutex_lock(&e->lock);
    while (true) {
        while (!e->quit && w->epoch == e->epoch) {
            qemu_cond_wait(&e->wake, &e->lock);
        }
        if (e->quit) {
            break;
        }
        w->epoch = e->epoch;
        qemu_mutex_unlock(&e->lock);
        worker_epoch(w);
        qemu_mutex_lock(&e->lock);
        e->busy--;
        qemu_cond_signal(&e->done);
    }
    qemu_mutex_unlock(&e->lock);
    if (e->c.ram_ops->thread_end) {
        e->c.ram_ops->thread_end(e->c.ram, thread);
    }
    return NULL;
}

/* No epoch is running */
void tlm_workers_start(TlmEngine *e)
{
    static const TlmPick *const work[TLM_WORKERS] = {
        [TLM_MTX] = mtx_work, [TLM_DTX] = dtx_work,
    };

    for (unsigned i = 0; i < TLM_WORKERS; i++) {
        TlmWorker *w = &e->worker[i];

        *w = (TlmWorker) {
            .engine = e,
            .group = i,
            .pick = work[i],
            .page = g_new(unsigned long, e->c.batch_max),
        };
        qemu_thread_create(&w->thread, tlm_group_names[i], worker_thread, w,
                           QEMU_THREAD_JOINABLE);
    }
}

/* No epoch is running, so the workers do not block */
void tlm_workers_stop(TlmEngine *e)
{
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->quit = true;
        qemu_cond_broadcast(&e->wake);
    }
    for (unsigned i = 0; i < TLM_WORKERS; i++) {
        TlmWorker *w = &e->worker[i];

        qemu_thread_join(&w->thread);
        g_clear_pointer(&w->page, g_free);
    }
}
