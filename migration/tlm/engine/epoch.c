/*
 * TLM engine: epochs
 *
 * THE ORDERING INVARIANT (../README.md, rules 1 and 2).  A receiver may
 * write straight into guest RAM, without locks, from several lanes.  This is
 * correct only because between two flushes a page is in flight at most once.
 * Therefore:
 *
 *   1. sync      the dirty log is read into the ledger;
 *   2. arm       the log of pages that may be sent is cleared, so that the
 *                next sync shows a write from now on;
 *   3. run       mtx and dtx take pages; the ledger gives a page out once
 *                between two syncs;
 *   4. flush     both have stopped, and later pages cannot overtake the
 *                pages that they have sent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "engine-int.h"
#include "../trace.h"

/* Time in one epoch for arming chunks ahead of mtx */
#define ARM_BUDGET_NS (20 * SCALE_MS)

/* A dirty page is hot for one to two times this long after a write */
#define AGE_NS (500 * SCALE_MS)

/* Bursts tell what the link carries beyond the cap; one in so long a time */
#define BURST_GAP_NS (250 * SCALE_MS)

/* No wait for a signal is longer; then the coordinator looks by itself */
#define LOOK_MS 1000

/* True if the chunk is now armed for the first time */
static bool arm_chunk(TlmEngine *e, unsigned block, unsigned long c,
                      bool ahead)
{
    TlmLedgerBlock *b = tlm_engine_block(e, block);
    bool armed = tlm_ledger_chunk_armed(b, c);
    unsigned long first = c * b->chunk_pages;
    bool arm;

    e->c.ram_ops->lock(e->c.ram);
    arm = tlm_ledger_chunk_dirty(b, c) || (!armed && ahead);
    if (arm) {
        e->c.ram_ops->clear_log(e->c.ram, block, first,
                                MIN(b->chunk_pages, b->pages - first));
        tlm_ledger_arm_chunk(b, c);
    }
    e->c.ram_ops->unlock(e->c.ram);
    return arm && !armed;
}

/*
 * Rule 3.  With KVM's manual dirty log protection, the log of a chunk must be
 * cleared before it reports the next write.  Before it is cleared for the
 * first time, it may report every page (KVM_DIRTY_LOG_INITIALLY_SET).  So the
 * log of a chunk that has dirty pages is cleared in every epoch.  The first
 * clearing can be slow in a large guest.  It is done as far ahead of mtx as the
 * budget allows, and by one chunk at least.  It must come before the search for
 * pages that were never populated.
 */
void tlm_engine_arm(TlmEngine *e)
{
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    bool budget = true;

    for (unsigned i = 0; i < e->blocks->len; i++) {
        TlmLedgerBlock *b = tlm_engine_block(e, i);

        for (unsigned long c = 0; c < tlm_ledger_chunks(b); c++) {
            unsigned long first = c * b->chunk_pages;

            if (!arm_chunk(e, i, c, e->rest || budget)) {
                continue;
            }
            if (e->c.ram_ops->armed) {
                e->c.ram_ops->armed(e->c.ram, i, first,
                                    MIN(b->chunk_pages, b->pages - first));
            }
            budget = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) <
                     start_ns + ARM_BUDGET_NS;
        }
    }
    e->sync_ns += qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns;
}

/*
 * The at-most-once check (rules 1 and 4): between two syncs a page may only
 * leave the ledger, once.  If anything has put a page back, the count is now
 * higher than at the last sync less the pages taken since.  That page may be
 * in flight twice, and no migration is better than a wrong one.  ram lock held.
 */
static bool taken_at_most_once(TlmEngine *e, GError **errp)
{
    uint64_t expected = stat64_get(&e->owed_pages);
    uint64_t owed = 0;

    for (unsigned i = 0; i < e->blocks->len; i++) {
        owed += tlm_ledger_owed(tlm_engine_block(e, i));
    }
    if (owed == expected) {
        return true;
    }
    g_set_error(errp, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                "Internal error: %" PRIu64 " pages are owed, not %" PRIu64
                ": a page may have been sent twice between two syncs",
                owed, expected);
    return false;
}

bool tlm_engine_sync(TlmEngine *e, GError **errp)
{
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    bool age = start_ns - e->aged_ns >= AGE_NS;
    TlmLedgerCounts counts = {};
    uint64_t owed;
    bool good;

    e->c.ram_ops->lock(e->c.ram);
    good = taken_at_most_once(e, errp);
    for (unsigned i = 0; good && i < e->blocks->len; i++) {
        tlm_ledger_before_sync(tlm_engine_block(e, i));
    }
    e->c.ram_ops->unlock(e->c.ram);
    if (!good) {
        return false;
    }

    e->c.ram_ops->sync(e->c.ram);

    e->c.ram_ops->lock(e->c.ram);
    for (unsigned i = 0; i < e->blocks->len; i++) {
        tlm_ledger_after_sync(tlm_engine_block(e, i), age, &counts);
    }
    stat64_add(&e->forgotten_pages, -counts.revived);
    owed = counts.clean_unsent + counts.dirty;
    stat64_set(&e->owed_pages, owed);
    e->c.ram_ops->owed(e->c.ram, owed);
    e->c.ram_ops->unlock(e->c.ram);

    if (age) {
        e->aged_before_ns = e->aged_ns;
        e->aged_ns = start_ns;
    }
    e->counts = counts;
    e->sync_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns;
    trace_tlm_sync(e->epoch, e->sync_ns / 1000, counts.clean_unsent,
                   counts.dirty, counts.hot, counts.fresh);
    return true;
}

static uint64_t pages_sent(TlmEngine *e)
{
    return stat64_get(&e->mtx_pages) + stat64_get(&e->dtx_pages);
}

/*
 * If the cap held back the last epoch, begin this one, of @ns, with a burst of
 * the bytes that the pacer has saved up, to see how fast they get through.
 */
static void burst_begin(TlmEngine *e, int64_t ns)
{
    uint64_t acked = 0;

    e->burst = (TlmBurst) {};
    e->burst_on = false;
    /* the epoch must be long enough to save the burst up and to send it */
    if (e->held_back && ns >= 2 * tlm_pacer_fill_ns(&e->pacer) &&
        e->begin_ns - e->burst_ns >= BURST_GAP_NS) {
        acked = e->c.sink_ops->acked(e->c.sink);
    }
    if (acked) {
        uint64_t sent = acked + e->c.sink_ops->queued(e->c.sink);

        QEMU_LOCK_GUARD(&e->lock);
        e->burst_on = tlm_burst_begin(&e->burst, sent,
                                      tlm_pacer_save_up(&e->pacer),
                                      tlm_pacer_fill_ns(&e->pacer));
        e->burst_ns = e->begin_ns;
    }
}

void tlm_engine_begin(TlmEngine *e)
{
    e->begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    if (!e->first_ns) {
        e->first_ns = e->begin_ns;
    }
    e->begin_bytes = e->c.sink_ops->sent(e->c.sink);
    e->begin_pages = pages_sent(e);
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->held_back = e->pacer.held_ns > e->begin_held_ns;
        e->begin_held_ns = e->pacer.held_ns;
    }
}

/* True if the epoch must end before its time; lock held */
static bool interrupted(const TlmEngine *e)
{
    return e->failed || e->cancelled || (e->interrupt && !e->rest);
}

/* Waits until another thread signals done, or until @end_ns; lock held */
static void wait_until(TlmEngine *e, int64_t end_ns)
{
    int64_t left_ns = end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    qemu_cond_timedwait(&e->done, &e->lock,
                        MIN(MAX(left_ns, 0) / SCALE_MS + 1, LOOK_MS));
}

/* Looks at the burst that is under way; lock held, and dropped meanwhile */
static void look_at_burst(TlmEngine *e)
{
    uint64_t acked;

    qemu_mutex_unlock(&e->lock);
    acked = e->c.sink_ops->acked(e->c.sink);
    e->burst_on = tlm_burst_look(&e->burst,
                                 qemu_clock_get_ns(QEMU_CLOCK_REALTIME),
                                 acked);
    qemu_mutex_lock(&e->lock);
    if (e->burst.bytes) {
        trace_tlm_burst(e->epoch, e->burst.bytes, e->burst.ns);
    }
}

int tlm_engine_run(TlmEngine *e, const TlmEpoch *epoch)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t end_ns = now_ns + MIN(epoch->ns, INT64_MAX - now_ns);

    e->now = *epoch;
    if (!e->uncapped) {
        WITH_QEMU_LOCK_GUARD(&e->lock) {
            tlm_pacer_set_rate(&e->pacer, e->c.sink_ops->max_rate(e->c.sink),
                               e->c.sink_ops->lanes(e->c.sink));
            e->batch_pages = tlm_pacer_batch_pages(&e->pacer,
                                                   1 << e->c.page_bits,
                                                   e->c.batch_max);
        }
        burst_begin(e, epoch->ns);
    }

    QEMU_LOCK_GUARD(&e->lock);

    e->sweep = (TlmCursor) {};
    e->timed_out = false;
    e->epoch++;
    e->over = interrupted(e);
    e->busy = TLM_WORKERS;
    qemu_cond_broadcast(&e->wake);

    while (e->busy) {
        bool end = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= end_ns ||
                   interrupted(e);

        if (end) {
            e->timed_out = true;
            e->over = true;
            qemu_cond_broadcast(&e->wake);
        }
        wait_until(e, e->burst_on ? 0 : end ? INT64_MAX : end_ns);
        if (e->burst_on) {
            look_at_burst(e);
        }
    }

    e->burst_on = false;
    e->busy_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - now_ns;
    while (epoch->linger && !interrupted(e) &&
           qemu_clock_get_ns(QEMU_CLOCK_REALTIME) < end_ns) {
        wait_until(e, end_ns);
    }

    return e->cancelled ? -ECANCELED : e->failed ? -EIO : 0;
}

bool tlm_engine_timed_out(const TlmEngine *e)
{
    return e->timed_out;
}

int tlm_engine_flush(TlmEngine *e)
{
    int ret = e->c.sink_ops->flush(e->c.sink);

    if (e->timed_out) {
        /* The lanes had something to send until they were flushed */
        e->busy_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - e->begin_ns;
    }
    return ret;
}

void tlm_engine_take_rest(TlmEngine *e)
{
    QEMU_LOCK_GUARD(&e->lock);
    e->rest = true;
    e->uncapped = true;
}

void tlm_engine_keep_cap(TlmEngine *e)
{
    QEMU_LOCK_GUARD(&e->lock);
    e->uncapped = false;
}

bool tlm_engine_passed(const TlmEngine *e)
{
    return e->walk.block == e->blocks->len;
}

TlmLedgerCounts tlm_engine_counts(const TlmEngine *e)
{
    return e->counts;
}

int64_t tlm_engine_sync_ns(const TlmEngine *e)
{
    return e->sync_ns;
}

void tlm_engine_sample(TlmEngine *e, int64_t now_ns, TlmPlanSample *sample)
{
    unsigned bits = e->c.page_bits;

    sample->epoch_ns = now_ns - e->begin_ns;
    sample->sync_ns = e->sync_ns;
    sample->idle_ns = now_ns - e->begin_ns - e->busy_ns;
    sample->total_bytes = e->total_pages << bits;
    sample->unsent_bytes = e->counts.clean_unsent << bits;
    sample->dirty_bytes = e->counts.dirty << bits;
    sample->hot_bytes = e->counts.hot << bits;
    /* How long ago a page that is called hot was written to, at most */
    sample->hot_ns = now_ns - MAX(e->aged_before_ns, e->first_ns);
    sample->dirtied_bytes = e->counts.fresh << bits;
    sample->skipped_bytes = stat64_get(&e->forgotten_pages) << bits;
    sample->sent_bytes = e->c.sink_ops->sent(e->c.sink) - e->begin_bytes;
    sample->sent_pages_bytes = (pages_sent(e) - e->begin_pages) << bits;
    sample->queued_bytes = e->c.sink_ops->queued(e->c.sink);
    sample->burst_bytes = e->burst.bytes;
    sample->burst_ns = e->burst.ns;
    sample->mtx_done = tlm_engine_passed(e);
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        sample->held_ns = e->pacer.held_ns - e->begin_held_ns;
    }
}
