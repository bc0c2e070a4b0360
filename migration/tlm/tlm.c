/*
 * TLM: lifecycle and stage machine
 *
 * The life of a migration, as QEMU's migration thread (the coordinator)
 * sees it:
 *
 *   ram_save_setup     -> tlm_ram_setup      stage setup, then live
 *   ram_save_iterate   -> tlm_ram_iterate    one epoch each, until the
 *                                            planner says: stop the guest
 *   migration_completion                     stops the guest
 *                      -> tlm_send_rest      stage stop: the rest, over all
 *                                            channels, in one more section
 *   migration_switchover_start               waits for the manager, if told
 *                      -> tlm_switchover_allowed
 *                                            to; makes the images inactive
 *   ram_save_complete                        QEMU's own code syncs once more
 *                                            and sends what it finds
 *   ram_save_cleanup   -> tlm_ram_cleanup
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration-tlm.h"
#include "qapi/qapi-events-migration-tlm.h"
#include "exec/memory.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "system/runstate.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "internal.h"
#include "trace.h"

/* An epoch while steps of the over-commit schedule are to come */
#define STEP_EPOCH_NS (50 * SCALE_MS)

/* Bursts tell what the link carries beyond the cap; not more often than: */
#define BURST_GAP_NS (250 * SCALE_MS)

TlmState tlm;

bool migrate_tlm(void)
{
    return migrate_get_current()->capabilities[MIGRATION_CAPABILITY_TLM] &&
           !tlm.left_out;
}

bool tlm_running(void)
{
    return tlm.running;
}

void tlm_mark(int mark)
{
    QEMU_LOCK_GUARD(&tlm.lock);
    tlm.mark_ns[mark] = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

/*
 * Pages were taken off the ledger; bitmap_mutex held.  During a sync they
 * may be more than were counted: those that it has just found.
 */
void tlm_owe_less(unsigned long pages)
{
    uint64_t owed = stat64_get(&tlm.owed_pages);

    owed -= MIN(pages, owed);
    stat64_set(&tlm.owed_pages, owed);
    ram_set_dirty_pages(owed);
}

uint64_t tlm_bytes_remaining(void)
{
    return stat64_get(&tlm.owed_pages) << tlm.page_bits;
}

static void set_stage(MigrationTlmStage stage)
{
    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        tlm.stage = stage;
    }
    trace_tlm_stage(MigrationTlmStage_str(stage));
    qapi_event_send_migration_tlm_stage(stage);
}

static void __attribute__((constructor)) tlm_init(void)
{
    qemu_mutex_init(&tlm.lock);
    qemu_cond_init(&tlm.wake);
    qemu_cond_init(&tlm.done);
}

static void free_blocks(void)
{
    for (unsigned i = 0; i < tlm.nr_blocks; i++) {
        tlm_ledger_block_destroy(&tlm.blocks[i].ledger);
        memory_region_unref(tlm.blocks[i].rb->mr);
    }
    g_clear_pointer(&tlm.blocks, g_free);
    tlm.nr_blocks = 0;
}

/* If there is not enough memory, no block is left: see can_go_on() */
static void setup_blocks(void)
{
    g_autoptr(GArray) blocks = g_array_new(false, true, sizeof(TlmBlock));
    RAMBlock *rb;
    uint64_t owed = 0;
    bool ok = true;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(ram_bitmap_mutex());

    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        TlmBlock b = { .rb = rb };

        /* A guest may eject memory that it was asked for before */
        memory_region_ref(rb->mr);
        ok = ok && tlm_ledger_block_init(&b.ledger, rb->bmap,
                                         rb->used_length >> tlm.page_bits,
                                         1UL << rb->clear_bmap_shift);
        if (!ok) {
            memory_region_unref(rb->mr);
            break;
        }
        tlm.total_pages += b.ledger.pages;
        owed += tlm_ledger_owed(&b.ledger);
        g_array_append_val(blocks, b);
    }
    stat64_set(&tlm.owed_pages, owed);
    tlm.nr_blocks = blocks->len;
    tlm.blocks = (TlmBlock *)g_array_free(g_steal_pointer(&blocks), false);
    /* What is discarded (virtio-mem) is not owed from the start */
    stat64_set(&tlm.forgotten_pages, tlm.total_pages - owed);
    if (!ok) {
        tlm.no_memory = true;
        free_blocks();
    }
}

void tlm_ram_setup(void)
{
    MigrationState *s = migrate_get_current();

    if (!migrate_tlm() || !s->migration_thread_running) {
        return;
    }
    assert(!tlm.running);

    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        /* Everything but the lock and the two conditions */
        memset(&tlm, 0, offsetof(TlmState, lock));
        memset(&tlm.epoch, 0, sizeof(tlm) - offsetof(TlmState, epoch));
        tlm.valid = true;
        tlm.plan.bound_reachable = true;
        tlm.plan.downtime_reachable = true;
        tlm.plan.reason = "setup";
        tlm.mark_ns[TLM_MARK_START] = s->start_time * SCALE_MS;
        tlm_pacer_init(&tlm.pacer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME),
                       migration_transferred_bytes());
    }
    tlm_connect_end();
    set_stage(MIGRATION_TLM_STAGE_SETUP);
    tlm_throttle_reset();
    tlm.page_bits = qemu_target_page_bits();
    tlm.planner = tlm_planner_new();
    setup_blocks();
    tlm_workers_start();
    tlm_watchdog_start();
    tlm.running = true;
}

void tlm_ram_cleanup(void)
{
    if (!tlm.running) {
        return;
    }
    tlm.running = false;
    tlm_watchdog_stop();
    tlm_workers_stop();
    free_blocks();
    g_clear_pointer(&tlm.planner, tlm_planner_free);
}

void tlm_free_page_hint(RAMBlock *rb, unsigned long start,
                        unsigned long npages)
{
    for (unsigned i = 0; tlm.running && i < tlm.nr_blocks; i++) {
        if (tlm.blocks[i].rb == rb) {
            unsigned long num = tlm_ledger_forget(&tlm.blocks[i].ledger,
                                                  start, npages);

            tlm_owe_less(num);
            stat64_add(&tlm.forgotten_pages, num);
        }
    }
}

/* Of mtx's pass, in percent */
static double pass_progress(void)
{
    return 100.0 * stat64_get(&tlm.passed_pages) / MAX(1, tlm.total_pages);
}

/*
 * The over-commit schedule is looked up between epochs.  No step may be
 * passed by, however fast pages without data go: mtx halts where the next
 * one is.  As long as there are any to come, epochs are short.
 */
static uint64_t walk_end(void)
{
    uint64_t passed = stat64_get(&tlm.passed_pages);
    double next = tlm_placement_next(pass_progress());

    if (next >= 100) {
        return tlm.total_pages;
    }
    return MIN(MAX(next / 100 * tlm.total_pages, passed) + 1,
               tlm.total_pages);
}

static int64_t epoch_ns(const TlmPlanDecision *decision)
{
    int64_t ns = decision->epoch_ms * SCALE_MS;

    if (tlm.walk_end < tlm.total_pages) {
        ns = MIN(ns, MAX(STEP_EPOCH_NS, 5 * tlm.sync_ns));
    }
    return ns;
}

/*
 * Where the cap held back the last epoch, let this one begin with what the
 * pacer has saved up, to see how fast that gets through.
 */
static void burst_begin(int64_t ns)
{
    uint64_t acked = 0;
    bool held;

    tlm.burst = (TlmBurst) {};
    tlm.burst_on = false;
    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        held = tlm.pacer.held_ns > tlm.epoch_begin_held_ns;
        tlm.epoch_begin_held_ns = tlm.pacer.held_ns;
    }
    /* it must have the time to save up, and to send it */
    if (held && ns >= 2 * tlm_pacer_fill_ns(&tlm.pacer) &&
        tlm.epoch_begin_ns - tlm.burst_ns >= BURST_GAP_NS) {
        acked = tlm_acked_bytes();
    }
    if (acked) {
        QEMU_LOCK_GUARD(&tlm.lock);
        tlm.burst_on = tlm_burst_begin(&tlm.burst, acked + tlm_queued_bytes(),
                                       tlm_pacer_save_up(&tlm.pacer),
                                       tlm_pacer_fill_ns(&tlm.pacer));
        tlm.burst_ns = tlm.epoch_begin_ns;
    }
}

/* Parameters may change at any time: they are taken over between epochs */
static void epoch_begin(MigrationState *s, const TlmPlanDecision *decision)
{
    double held;

    tlm.dtx_on = s->parameters.tlm_dtx && decision->send_settled;
    tlm.send_hot = decision->send_hot;
    tlm.epoch_begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    tlm.epoch_begin_bytes = migration_transferred_bytes();
    tlm.epoch_begin_pages = tlm_pages_sent();
    tlm.epoch_begin_zero_pages = stat64_get(&mig_stats.zero_pages);
    tlm.epoch_begin_paused_ns = tlm_throttle_paused_ns();
    held = tlm_placement_step(pass_progress());
    /* The planner speaks of full speed; fewer host CPUs take their part */
    tlm_throttle_set(MIN(decision->guest_speed / tlm_placement_share(),
                         held));
    tlm.walk_end = walk_end();

    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        tlm_pacer_set_rate(&tlm.pacer, migrate_max_bandwidth(),
                           migrate_multifd_channels());
        tlm.batch_pages = tlm_pacer_batch_pages(&tlm.pacer,
                                                1 << tlm.page_bits,
                                                multifd_ram_page_count());
    }
    burst_begin(epoch_ns(decision));
}

/* The ending of a RAM section in which pages were queued */
static int end_of_section(QEMUFile *f)
{
    int ret = multifd_ram_flush_and_sync(f);

    if (ret < 0) {
        return ret;
    }
    qemu_put_be64(f, RAM_SAVE_FLAG_EOS);
    ram_transferred_add(8);
    return qemu_fflush(f);
}

static bool can_go_on(void)
{
    Error *err = NULL;

    if (tlm.no_memory) {
        error_setg(&err, "Not enough memory for the bitmaps of TLM: they "
                   "need 96 KiB per GiB of guest RAM");
    } else if (!tlm_layout_unchanged()) {
        error_setg(&err,
                   "The layout of RAM has changed during the migration");
    } else {
        return true;
    }
    migrate_set_error(migrate_get_current(), err);
    error_free(err);
    return false;
}

/*
 * How long may RAM take in stage stop?  Under a cap nobody can say before
 * what the link carries without it.  So "cancel" waits until the bound has
 * really passed, and not longer.  (If it has before the stop, the user has
 * asked for the switchover nevertheless.)
 */
static int64_t stop_limit_ns(const MigrationState *s)
{
    int64_t bound_ns = s->parameters.tlm_time_bound * SCALE_MS;
    int64_t passed_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) -
                        tlm.mark_ns[TLM_MARK_START];

    if (s->parameters.tlm_bound_action != MIGRATION_TLM_BOUND_ACTION_CANCEL ||
        !tlm.plan.capped || passed_ns >= bound_ns) {
        return INT64_MAX;
    }
    return bound_ns - passed_ns;
}

/*
 * Stage stop, inside of a RAM section like any epoch; no locks.  All that is
 * owed goes over all channels.
 */
static int send_all_owed(QEMUFile *f)
{
    MigrationState *s = migrate_get_current();
    Error *err = NULL;
    int ret;

    tlm_epoch_arm();
    ret = tlm_epoch_run(stop_limit_ns(s), false);
    if (!ret && tlm.epoch_timed_out && stat64_get(&tlm.owed_pages)) {
        error_setg(&err, "The time bound of %" PRIu64 " ms has passed with "
                   "the guest stopped, and %" PRIu64 " bytes of RAM are "
                   "still to be sent: 'max-bandwidth' has hidden how little "
                   "the network carries", s->parameters.tlm_time_bound,
                   stat64_get(&tlm.owed_pages) << tlm.page_bits);
        migrate_set_error(s, err);
        error_free(err);
        ret = -ETIME;
    } else if (!ret && stat64_get(&tlm.owed_pages)) {
        /* Rather no migration than one that lacks a page */
        error_setg(&err, "%" PRIu64 " pages are still owed at the end of "
                   "stage stop", stat64_get(&tlm.owed_pages));
        migrate_set_error(s, err);
        error_free(err);
        ret = -EIO;
    }
    tlm_sending_begin();
    if (!ret) {
        ret = multifd_send_sync_main(MULTIFD_SYNC_LOCAL);
    }
    if (!ret) {
        tlm_drain();
        ret = end_of_section(f);
    }
    tlm_sending_end();
    return ret;
}

/* Why the guest runs on at the source, if tlm-bound-action is "cancel" */
static void say_bound_lost(MigrationState *s, const TlmPlanDecision *decision)
{
    g_autoptr(GString) text = g_string_new(NULL);
    Error *err = NULL;

    g_string_printf(text, "The time bound of %" PRIu64 " ms ",
                    s->parameters.tlm_time_bound);
    if (decision->smallest_bound_ms) {
        g_string_append_printf(text, "cannot be kept: the smallest that can "
                               "is %" PRIu64 " ms",
                               decision->smallest_bound_ms);
    } else {
        g_string_append(text, "has passed");
    }
    if (decision->capped) {
        g_string_append_printf(text, ", as 'max-bandwidth' is %" PRIu64
                               " bytes/s", s->parameters.max_bandwidth);
    }
    error_setg(&err, "%s", text->str);
    migrate_set_error(s, err);
    error_free(err);
}

int tlm_ram_iterate(QEMUFile *f)
{
    MigrationState *s = migrate_get_current();
    TlmPlanDecision decision;
    int ret = 0;

    if (tlm.stage == MIGRATION_TLM_STAGE_STOP) {
        ret = send_all_owed(f);
        return ret == -ECANCELED ? 0 : ret;
    }
    if (tlm.stage == MIGRATION_TLM_STAGE_SETUP) {
        tlm_mark(TLM_MARK_LIVE);
        tlm.epoch_begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        tlm.epoch_begin_bytes = migration_transferred_bytes();
        set_stage(MIGRATION_TLM_STAGE_LIVE);
    }
    if (!can_go_on()) {
        return -EINVAL;
    }
    ret = tlm_epoch_sync();
    if (ret < 0) {
        return ret;
    }
    tlm_epoch_arm();
    tlm_ask_planner(&decision);

    switch (decision.action) {
    case TLM_PLAN_CONTINUE:
        /*
         * With nothing to do but wait for the planner's moment, wait; but
         * go on at once if the pass has only come to what is not armed.
         */
        epoch_begin(s, &decision);
        ret = tlm_epoch_run(epoch_ns(&decision),
                            tlm.walk.block == tlm.nr_blocks);
        break;
    case TLM_PLAN_SWITCHOVER:
        tlm_mark(TLM_MARK_STOPPING);
        tlm_throttle_end(true);
        tlm.switchover_due = true;
        break;
    case TLM_PLAN_CANCEL:
        say_bound_lost(s, &decision);
        ret = -ETIME;
        break;
    }
    if (ret == -ECANCELED) {
        return 0;               /* QEMU sees it by the status */
    }
    if (!ret) {
        tlm_sending_begin();
        ret = end_of_section(f);
        tlm_sending_end();
    }
    if (tlm.epoch_timed_out) {
        /* The channels had something to send until they were drained */
        tlm.epoch_busy_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) -
                            tlm.epoch_begin_ns;
    }
    /* The pacer keeps the cap; QEMU's quota is for the devices that follow */
    migration_rate_reset();
    return ret;
}

bool tlm_switchover_due(void)
{
    return tlm.switchover_due;
}

int tlm_send_rest(QEMUFile *f)
{
    int ret;

    if (!tlm.running) {
        return 0;
    }
    tlm_mark(TLM_MARK_STOPPED);
    tlm.stopped_pages = ram_get_total_transferred_pages();
    set_stage(MIGRATION_TLM_STAGE_STOP);
    if (!can_go_on()) {
        return -EINVAL;
    }
    ret = tlm_epoch_sync();
    if (ret < 0) {
        return ret;
    }
    tlm_mark(TLM_MARK_SYNCED);

    /*
     * The guest is stopped, but this can take long: do not stall QMP.  It
     * comes before the images are made inactive, so that whatever the main
     * loop does meanwhile is no worse than in pre-switchover.  If something
     * writes to guest RAM, the sync of ram_save_complete() finds it.
     */
    bql_unlock();
    migration_rate_reset();
    ret = qemu_savevm_state_iterate(f, false);
    bql_lock();
    if (ret < 0) {
        return ret;
    }
    if (tlm.cancelled) {
        return -ECANCELED;
    }
    tlm_mark(TLM_MARK_RAM);
    if (migrate_pause_before_switchover()) {
        set_stage(MIGRATION_TLM_STAGE_PRE_SWITCHOVER);
    }
    return 0;
}

bool tlm_switchover_allowed(void)
{
    Error *err = NULL;

    if (!tlm.running) {
        return true;
    }
    if (!runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        error_setg(&err, "The guest was started after it had been stopped "
                   "for the switchover; its run state is '%s'",
                   RunState_str(runstate_get()));
        migrate_set_error(migrate_get_current(), err);
        error_free(err);
        return false;
    }
    tlm_mark(TLM_MARK_SWITCHOVER);
    set_stage(MIGRATION_TLM_STAGE_DEVICE);
    return true;
}

void tlm_ram_completed(void)
{
    if (!tlm.running) {
        return;
    }
    tlm_watchdog_commit();
    /* With what QEMU's own code has sent, and all of it has been */
    stat64_set(&tlm.stop_pages, ram_get_total_transferred_pages() -
                                tlm.stopped_pages);
    stat64_set(&tlm.owed_pages, 0);
}

void tlm_device_state_saved(void)
{
    if (tlm.running) {
        tlm_mark(TLM_MARK_DEVICE);
    }
}

void tlm_finished(void)
{
    if (tlm.running) {
        tlm_throttle_end(false);
        tlm_placement_end();
        tlm_mark(TLM_MARK_END);
        set_stage(MIGRATION_TLM_STAGE_DONE);
    }
}

void tlm_cancel(void)
{
    if (!tlm.running) {
        tlm_connect_cancel();
        return;
    }
    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        tlm.cancelled = true;
        tlm.epoch_over = true;
        qemu_cond_broadcast(&tlm.wake);
        qemu_cond_broadcast(&tlm.done);
    }
    multifd_send_cancel();
}

void qmp_migrate_tlm_switchover(Error **errp)
{
    QEMU_LOCK_GUARD(&tlm.lock);

    if (!tlm.running || tlm.stage != MIGRATION_TLM_STAGE_LIVE) {
        error_setg(errp, "No migration with capability 'tlm' is in its "
                   "live stage");
        return;
    }
    tlm.switchover_requested = true;
    qemu_cond_broadcast(&tlm.done);
}
