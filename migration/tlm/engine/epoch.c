/*
 * TLM: epochs
 *
 * THE ORDERING INVARIANT.  A multifd receiver writes straight into guest
 * RAM, without locks, on several channels.  That is correct only because
 * between two multifd syncs a page is in flight at most once.  Therefore:
 *
 *   1. sync      the dirty log is read into the ledger;
 *   2. arm       the log of what may be sent is cleared, so that a write
 *                from now on shows in the next sync;
 *   3. run       mtx and dtx take pages, each page once: the ledger gives
 *                a page out once between two syncs;
 *   4. flush     both have stopped; every channel gets a multifd SYNC,
 *                the main stream a flush (tlm.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "exec/ramlist.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/ram.h"
#include "../internal.h"
#include "../trace.h"

/* How long chunks may be armed ahead of mtx, in one epoch */
#define ARM_BUDGET_NS (20 * SCALE_MS)

/* A dirty page is hot for one to two times as long after a write */
#define AGE_NS (500 * SCALE_MS)

/*
 * Memory can't be plugged during a migration, but a guest may eject what it
 * was asked for before.  The block stays as long as there is a reference to
 * it, but is not migrated any more.
 */
bool tlm_layout_unchanged(void)
{
    RAMBlock *rb;
    unsigned i = 0;

    RCU_READ_LOCK_GUARD();

    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (i == tlm.nr_blocks || tlm.blocks[i].rb != rb ||
            tlm.blocks[i].ledger.pages != rb->used_length >> tlm.page_bits) {
            return false;
        }
        i++;
    }
    return i == tlm.nr_blocks;
}

/* True if the chunk is now armed for the first time */
static bool arm_chunk(TlmBlock *block, unsigned long c, bool ahead)
{
    TlmLedgerBlock *b = &block->ledger;
    bool armed = tlm_ledger_chunk_armed(b, c);
    unsigned long start = c * b->chunk_pages;

    QEMU_LOCK_GUARD(ram_bitmap_mutex());

    if (!tlm_ledger_chunk_dirty(b, c) && (armed || !ahead)) {
        return false;
    }
    migration_clear_memory_region_dirty_bitmap_range(
        block->rb, start, MIN(b->chunk_pages, b->pages - start));
    tlm_ledger_arm_chunk(b, c);
    return !armed;
}

/*
 * With KVM's manual dirty log protection, the log of a chunk has to be
 * cleared before it reports the next write; and before it is cleared for
 * the first time, it may report every page (KVM_DIRTY_LOG_INITIALLY_SET).
 * So a chunk that has dirty pages is cleared in every epoch.  The first
 * clearing can be slow in a large guest: it is done as far ahead of mtx
 * as the budget allows, and by one chunk at least.  It has to come before
 * the search for what was never populated.
 *
 * Called without the BQL: clearing a large chunk takes milliseconds.
 */
void tlm_epoch_arm(void)
{
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    bool all = tlm.stage == MIGRATION_TLM_STAGE_STOP;
    bool budget = true;

    for (unsigned i = 0; i < tlm.nr_blocks; i++) {
        TlmBlock *block = &tlm.blocks[i];
        TlmLedgerBlock *b = &block->ledger;

        for (unsigned long c = 0; c < tlm_ledger_chunks(b); c++) {
            unsigned long start = c * b->chunk_pages;

            if (arm_chunk(block, c, all || budget)) {
                tlm.counts.clean_unsent -= tlm_skip_unpopulated(
                    block, start, MIN(b->chunk_pages, b->pages - start));
                budget = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) <
                         start_ns + ARM_BUDGET_NS;
            }
        }
    }
    tlm.sync_ns += qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns;
}

/*
 * The at-most-once check: between two syncs a page may only leave the
 * ledger, once.  If anything has put one back, what is counted now is more
 * than what was counted at the last sync less what was taken since.  That
 * page may be in flight twice: no migration, rather than a wrong one.
 * bitmap_mutex held.
 */
static bool taken_at_most_once(void)
{
    uint64_t expected = stat64_get(&tlm.owed_pages);
    uint64_t owed = 0;
    Error *err = NULL;

    for (unsigned i = 0; i < tlm.nr_blocks; i++) {
        owed += tlm_ledger_owed(&tlm.blocks[i].ledger);
    }
    if (owed == expected) {
        return true;
    }
    error_setg(&err, "Internal error: %" PRIu64 " pages are owed, not %"
               PRIu64 ": a page may have been sent twice between two syncs",
               owed, expected);
    migrate_set_error(migrate_get_current(), err);
    error_free(err);
    return false;
}

/*
 * Reads the dirty log.  The BQL may be held or not; it is needed for part
 * of it only.
 */
int tlm_epoch_sync(void)
{
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    bool age = start_ns - tlm.aged_ns >= AGE_NS;
    bool locked = bql_locked();

    WITH_QEMU_LOCK_GUARD(ram_bitmap_mutex()) {
        if (!taken_at_most_once()) {
            return -EINVAL;
        }
        for (unsigned i = 0; i < tlm.nr_blocks; i++) {
            tlm_ledger_before_sync(&tlm.blocks[i].ledger);
        }
    }
    if (!locked) {
        bql_lock();
    }
    WITH_RCU_READ_LOCK_GUARD() {
        migration_bitmap_sync_precopy(false);
    }
    if (!locked) {
        bql_unlock();
    }

    WITH_QEMU_LOCK_GUARD(ram_bitmap_mutex()) {
        tlm.counts = (TlmLedgerCounts) {};
        for (unsigned i = 0; i < tlm.nr_blocks; i++) {
            tlm_ledger_after_sync(&tlm.blocks[i].ledger, age, &tlm.counts);
        }
        stat64_add(&tlm.forgotten_pages, -tlm.counts.revived);
        if (age) {
            tlm.aged_before_ns = tlm.aged_ns;
            tlm.aged_ns = start_ns;
        }
        stat64_set(&tlm.owed_pages,
                   tlm.counts.clean_unsent + tlm.counts.dirty);
        ram_set_dirty_pages(tlm.counts.clean_unsent + tlm.counts.dirty);
    }
    /* QEMU has counted what is carried over twice */
    stat64_set(&mig_stats.dirty_bytes_last_sync,
               stat64_get(&tlm.owed_pages) << tlm.page_bits);

    tlm.sync_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns;
    trace_tlm_sync(tlm.epoch, tlm.sync_ns / 1000, tlm.counts.clean_unsent,
                   tlm.counts.dirty, tlm.counts.hot, tlm.counts.fresh);
    return 0;
}

/*
 * The epoch is to end before its time; tlm.lock held.  A request for the
 * switchover ends one epoch, so that the planner is asked; if that does not
 * grant it yet, the next ones have their time.
 */
static bool interrupted(void)
{
    return tlm.failed || tlm.cancelled ||
           (tlm.switchover_requested && !tlm.switchover_noticed &&
            tlm.stage == MIGRATION_TLM_STAGE_LIVE);
}

/*
 * Lets the workers run for @ns, or until they have nothing more to do; in
 * that case it waits for the rest of @ns if told to @linger.  Returns with
 * both workers idle: 0, or a negative errno.  No locks held, so that a
 * worker that waits for a slow network stalls nobody.
 */
int tlm_epoch_run(int64_t ns, bool linger)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t end_ns = now_ns + MIN(ns, INT64_MAX - now_ns);

    QEMU_LOCK_GUARD(&tlm.lock);

    tlm.sweep = (TlmCursor) {};
    tlm.epoch_timed_out = false;
    tlm.epoch++;
    tlm.epoch_over = interrupted();
    tlm.busy = TLM_WORKERS;
    qemu_cond_broadcast(&tlm.wake);

    while (tlm.busy) {
        int64_t left_ns = end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        if (left_ns <= 0 || interrupted()) {
            tlm.epoch_timed_out = true;
            tlm.epoch_over = true;
            qemu_cond_broadcast(&tlm.wake);
            left_ns = NANOSECONDS_PER_SECOND;
        }
        if (tlm.burst_on) {
            left_ns = 0;
        }
        qemu_cond_timedwait(&tlm.done, &tlm.lock,
                            MIN(left_ns / SCALE_MS + 1, 1000));
        if (tlm.burst_on) {
            qemu_mutex_unlock(&tlm.lock);
            tlm.burst_on = tlm_burst_look(
                &tlm.burst, qemu_clock_get_ns(QEMU_CLOCK_REALTIME),
                tlm_acked_bytes());
            qemu_mutex_lock(&tlm.lock);
            if (tlm.burst.bytes) {
                trace_tlm_burst(tlm.epoch, tlm.burst.bytes, tlm.burst.ns);
            }
        }
    }

    tlm.burst_on = false;
    tlm.epoch_busy_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - now_ns;
    while (linger && !interrupted()) {
        int64_t left_ns = end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        if (left_ns <= 0) {
            break;
        }
        qemu_cond_timedwait(&tlm.done, &tlm.lock,
                            MIN(left_ns / SCALE_MS + 1, 1000));
    }

    return tlm.cancelled ? -ECANCELED : tlm.failed ? -EIO : 0;
}
