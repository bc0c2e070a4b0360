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
 *                      -> tlm_send_rest      stop stage: the rest, over all
 *                                            channels, in one more section
 *   migration_switchover_start               waits for the manager, if told
 *                      -> tlm_switchover_allowed
 *                                            to; makes the images inactive
 *   ram_save_complete                        QEMU's own code syncs once more
 *                                            and sends what it finds
 *   ram_save_cleanup   -> tlm_ram_cleanup
 *
 * Or, if the planner says "post-copy":
 *
 *   postcopy_start                           stops the guest
 *   ram_postcopy_send_discard_bitmap
 *                      -> tlm_ram_hand_over  the ledger becomes QEMU's bitmap,
 *                                            all that follows is QEMU's own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration-tlm.h"
#include "exec/target_page.h"
#include "system/runstate.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/lease.h"
#include "checkpoint/options.h"
#include "internal.h"
#include "placement.h"
#include "postcopy.h"
#include "settle.h"
#include "throttle.h"
#include "tlm.h"
#include "watchdog.h"

/*
 * The length of an epoch while steps of the over-commit schedule are to
 * come: this long, or so many times the cost of a sync
 */
#define STEP_EPOCH_NS    (50 * SCALE_MS)
#define STEP_EPOCH_SYNCS 5
/*
 * A section of the copies of a checkpoint.  Then those that have been sent are
 * flushed, and their memory is given back; what is written can use it.
 */
#define FLUSH_ROUND_NS   (25 * SCALE_MS)

static TlmMigration migration;

bool tlm_is_checkpoint(void)
{
    return tlm_checkpoint_options();
}

int tlm_checkpoint(MigrationState *s)
{
    return tlm_checkpoint_complete(&migration, s);
}

bool tlm_under_way(void)
{
    return migration.running;
}

bool tlm_running(void)
{
    return migration.running && !migration_in_postcopy();
}

uint64_t tlm_bytes_remaining(void)
{
    return tlm_bytes(&migration, tlm_engine_owed(migration.engine));
}

static void __attribute__((constructor)) tlm_init(void)
{
    qemu_mutex_init(&migration.lock);
}

bool tlm_check_start(const MigrationAddress *addr, Error **errp)
{
    TlmMigration *m = &migration;

    if (m->running || tlm_connect_pending()) {
        error_setg(errp, "The previous migration has not been cleaned up "
                   "yet; try again");
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        m->valid = false;
    }
    if (!tlm_check(addr, errp)) {
        return false;
    }
    if (migrate_tlm()) {
        if (!tlm_placement_start(errp)) {
            return false;
        }
        tlm_connect_begin();
    }
    return true;
}

static TlmEngine *new_engine(TlmMigration *m)
{
    TlmEngineConfig config = {
        .ram_ops = &tlm_guest_ram_ops,
        .ram = &m->ram,
        .sink_ops = &tlm_multifd_sink_ops,
        .sink = &m->sink,
        .page_bits = m->ram.page_bits,
        .batch_max = multifd_ram_page_count(),
    };

    return tlm_engine_new(&config);
}

void tlm_ram_setup(void)
{
    MigrationState *s = migrate_get_current();
    TlmMigration *m = &migration;

    if (!migrate_tlm() || !s->migration_thread_running) {
        return;
    }
    assert(!m->running);

    g_clear_pointer(&m->engine, tlm_engine_free);
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        /* Everything but the lock */
        memset(m, 0, offsetof(TlmMigration, lock));
        memset(&m->stage, 0, sizeof(*m) - offsetof(TlmMigration, stage));
        m->valid = true;
        m->plan.bound_reachable = true;
        m->plan.downtime_reachable = true;
        m->plan.reason = TLM_PLAN_REASON_SETUP;
        m->mark_ns[TLM_MARK_START] = s->start_time * SCALE_MS;
    }
    tlm_connect_end();
    tlm_set_stage(m, MIGRATION_TLM_STAGE_SETUP);
    tlm_throttle_reset();
    tlm_settle_reset();
    m->planner = tlm_planner_new();
    tlm_guest_ram_init(&m->ram);
    tlm_multifd_sink_init(&m->sink, &m->ram);
    m->engine = m->ram.engine = new_engine(m);
    m->no_memory = !tlm_guest_ram_add_blocks(&m->ram);
    tlm_engine_start(m->engine);
    tlm_watchdog_start(m);
    m->running = true;
}

void tlm_ram_cleanup(void)
{
    TlmMigration *m = &migration;

    if (!m->running) {
        return;
    }
    m->running = false;
    tlm_watchdog_stop();
    tlm_engine_stop(m->engine);
    tlm_multifd_sink_destroy(&m->sink);
    tlm_guest_ram_destroy(&m->ram);
    g_clear_pointer(&m->planner, tlm_planner_free);
}

void tlm_ram_loading(void)
{
    tlm_chain_end("RAM was loaded from a snapshot");
    migration.ram_loaded = true;
}

void tlm_free_page_hint(RAMBlock *rb, unsigned long start,
                        unsigned long npages)
{
    if (migration.running) {
        tlm_guest_ram_forget(&migration.ram, rb, start, npages);
    }
}

/* Of mtx's pass, in percent */
static double pass_progress(const TlmEngineCounters *c)
{
    return 100.0 * c->passed / MAX(1, c->total);
}

/*
 * The over-commit schedule is looked up between epochs.  No step may be
 * skipped, however fast pages without data go: mtx halts where the next
 * step is.  As long as steps are to come, epochs are short.
 */
static uint64_t walk_end(const TlmEngineCounters *c)
{
    double next = tlm_placement_next(pass_progress(c));

    if (next >= 100) {
        return c->total;
    }
    return MIN(MAX(next / 100 * c->total, c->passed) + 1, c->total);
}

/* Parameters may change at any time; they take effect between epochs */
static int run_epoch(TlmMigration *m, const TlmPlanDecision *decision)
{
    TlmEpoch epoch = {
        .ns = decision->epoch_ms * SCALE_MS,
        /*
         * If nothing is left to do, wait for the planner's moment.  But go on
         * at once if the pass has only come to a chunk that is not armed.
         */
        .linger = tlm_engine_passed(m->engine),
        .dtx = migrate_get_current()->parameters.tlm_dtx &&
               decision->send_settled,
        .hot = decision->send_hot,
    };
    TlmEngineCounters c;
    double held;

    tlm_sample_begin(m);
    tlm_engine_counters(m->engine, &c);
    held = tlm_placement_step(pass_progress(&c));
    /* The planner means full speed; fewer host CPUs have their share in it */
    tlm_throttle_set(MIN(decision->guest_speed / tlm_placement_share(),
                         held));
    epoch.walk_end = walk_end(&c);
    if (epoch.walk_end < c.total) {
        epoch.ns = MIN(epoch.ns, MAX(STEP_EPOCH_NS, STEP_EPOCH_SYNCS *
                                     tlm_engine_sync_ns(m->engine)));
    }
    return tlm_engine_run(m->engine, &epoch);
}

/*
 * How long may RAM take in the stop stage?  Under a cap nobody can know
 * before what the link carries without it.  So "cancel" waits until the bound
 * has really passed, and not longer.  (If the bound passed before the stop,
 * the user has asked for the switchover nevertheless.)
 */
static int64_t stop_limit_ns(const TlmMigration *m, const MigrationState *s)
{
    int64_t bound_ns = s->parameters.tlm_time_bound * SCALE_MS;
    int64_t passed_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) -
                        m->mark_ns[TLM_MARK_START];

    if (s->parameters.tlm_bound_action != MIGRATION_TLM_BOUND_ACTION_CANCEL ||
        !m->plan.capped || passed_ns >= bound_ns) {
        return INT64_MAX;
    }
    return bound_ns - passed_ns;
}

/*
 * The stop stage, inside of a RAM section like any epoch; no locks.  All
 * pages that are owed go over all channels: copies in several sections.
 */
static int send_all_owed(TlmMigration *m)
{
    MigrationState *s = migrate_get_current();
    bool stopped = m->stage == MIGRATION_TLM_STAGE_STOP;
    TlmEpoch epoch = { .ns = stopped ? stop_limit_ns(m, s) : FLUSH_ROUND_NS };
    uint64_t owed;
    int ret;

    if (stopped) {
        tlm_engine_arm(m->engine);
    }
    ret = tlm_engine_run(m->engine, &epoch);
    if (!ret && m->sink.keep && tlm_engine_timed_out(m->engine)) {
        return tlm_engine_flush(m->engine);     /* another section follows */
    }
    owed = tlm_engine_owed(m->engine);
    if (!ret && owed && tlm_engine_timed_out(m->engine)) {
        tlm_fail(s, "The time bound of %" PRIu64 " ms has passed with the "
                 "guest stopped, and %" PRIu64 " bytes of RAM are still to be "
                 "sent: 'max-bandwidth' has hidden how little the network "
                 "carries", s->parameters.tlm_time_bound, tlm_bytes(m, owed));
        return -ETIME;
    }
    if (!ret && owed) {
        /* Rather no migration than one that lacks a page */
        tlm_fail(s, "%" PRIu64 " pages are still owed at the end of stage "
                 "stop", owed);
        return -EIO;
    }
    if (!ret) {
        ret = tlm_engine_drain(m->engine);
    }
    if (!ret) {
        ret = tlm_engine_flush(m->engine);
    }
    return ret;
}

/* Why the guest runs on at the source, if tlm-bound-action is "cancel" */
static void say_bound_lost(MigrationState *s, const TlmPlanDecision *decision)
{
    g_autoptr(GString) text = g_string_new(NULL);

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
    tlm_fail(s, "%s", text->str);
}

/*
 * After a sync: what comes next.  False: nothing yet, as the destination is
 * asked first.  A decision to end the live stage is taken twice then, unless
 * little has become dirty meanwhile.
 */
static bool decide(TlmMigration *m, bool settled, TlmPlanDecision *decision)
{
    if (settled && tlm_settle_stands(m)) {
        *decision = m->plan;
        return true;
    }
    tlm_ask_planner(m, decision);
    if (decision->reason == TLM_PLAN_REASON_PASS_WASTED &&
        !tlm_checkpoint_try()) {
        decision->action = TLM_PLAN_CONTINUE;
    }
    return !tlm_settle_begin(m, decision);
}

/* Does what the planner says; 0 or a negative errno */
static int act(TlmMigration *m, const TlmPlanDecision *decision)
{
    switch (decision->action) {
    case TLM_PLAN_CONTINUE:
        if (decision->reason == TLM_PLAN_REASON_HELD &&
            m->stage == MIGRATION_TLM_STAGE_LIVE) {
            tlm_set_stage(m, MIGRATION_TLM_STAGE_READY);
        }
        if (tlm_is_checkpoint()) {
            tlm_checkpoint_live(m);
        }
        return run_epoch(m, decision);
    case TLM_PLAN_SWITCHOVER:
        if (tlm_is_checkpoint()) {
            tlm_checkpoint_prepare(m);
        }
        tlm_mark(m, TLM_MARK_STOPPING);
        tlm_throttle_end(true);
        m->switchover_due = true;
        return 0;
    case TLM_PLAN_POSTCOPY:
        m->postcopy_due = true;
        return 0;
    case TLM_PLAN_CANCEL:
        say_bound_lost(migrate_get_current(), decision);
        return -ETIME;
    }
    g_assert_not_reached();
}

int tlm_ram_iterate(QEMUFile *f)
{
    TlmMigration *m = &migration;
    bool settled = tlm_settle_asked();
    TlmPlanDecision decision;
    int ret = 0;

    m->sink.f = f;
    if (m->stage == MIGRATION_TLM_STAGE_STOP ||
        m->stage == MIGRATION_TLM_STAGE_FLUSH) {
        ret = send_all_owed(m);
        return ret == -ECANCELED ? 0 : ret;
    }
    if (m->stage == MIGRATION_TLM_STAGE_SETUP) {
        tlm_mark(m, TLM_MARK_LIVE);
        tlm_sample_begin(m);
        tlm_set_stage(m, MIGRATION_TLM_STAGE_LIVE);
        if (tlm_is_checkpoint()) {
            tlm_checkpoint_live(m);
        }
    }
    if (settled) {
        ret = tlm_settle_wait(m);
    }
    if (!ret) {
        ret = tlm_sync_log(m);
    }
    if (!ret) {
        tlm_engine_arm(m->engine);
        if (decide(m, settled, &decision)) {
            ret = act(m, &decision);
        }
    }
    if (ret == -ECANCELED) {
        return 0;               /* QEMU sees it by the status */
    }
    if (!ret) {
        ret = tlm_engine_flush(m->engine);
    }
    /* The pacer keeps the cap; QEMU's quota serves the device state */
    migration_rate_reset();
    return ret;
}

bool tlm_switchover_due(void)
{
    tlm_settle_ask(migrate_get_current()->to_dst_file);
    return migration.switchover_due;
}

bool tlm_postcopy_due(void)
{
    TlmMigration *m = &migration;

    if (!m->postcopy_due) {
        return false;
    }
    tlm_mark(m, TLM_MARK_STOPPING);
    tlm_throttle_end(true);
    if (migrate_pause_before_switchover()) {
        tlm_set_stage(m, MIGRATION_TLM_STAGE_PRE_SWITCHOVER);
    }
    return true;
}

bool tlm_ram_hand_over(void)
{
    TlmMigration *m = &migration;
    uint64_t owed;

    if (!m->running) {
        return false;
    }
    tlm_mark(m, TLM_MARK_SYNCED);
    tlm_watchdog_commit();
    m->stopped_pages = ram_get_total_transferred_pages();
    owed = tlm_engine_hand_over(m->engine);
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        m->postcopy_bytes = tlm_bytes(m, owed);
        m->postcopy_sent = migration_transferred_bytes();
    }
    tlm_mark(m, TLM_MARK_POSTCOPY);
    tlm_set_stage(m, MIGRATION_TLM_STAGE_POSTCOPY);
    return true;
}

void tlm_start_postcopy(void)
{
    TlmMigration *m = &migration;

    if (!m->running || !qatomic_read(&migrate_get_current()->start_postcopy)) {
        return;                 /* it is due at the end of the pass */
    }
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        m->switchover_requested = true;
    }
    tlm_engine_interrupt(m->engine);
}

void tlm_pong(uint32_t value)
{
    if (migration.running) {
        tlm_settle_pong(&migration, value);
        tlm_postcopy_pong(&migration, value);
    }
}

int tlm_send_rest(QEMUFile *f)
{
    TlmMigration *m = &migration;
    int ret;

    if (!m->running) {
        return 0;
    }
    tlm_mark(m, TLM_MARK_STOPPED);
    m->stopped_pages = ram_get_total_transferred_pages();
    tlm_set_stage(m, MIGRATION_TLM_STAGE_STOP);
    tlm_engine_take_rest(m->engine);
    ret = tlm_sync_log(m);
    if (ret < 0) {
        return ret;
    }
    tlm_mark(m, TLM_MARK_SYNCED);

    /*
     * The guest is stopped, but sending can take long: do not stall QMP.
     * The images are still active, so the main loop can do no more harm
     * meanwhile than in pre-switchover.  If something writes to guest RAM,
     * the sync of ram_save_complete() finds it.
     */
    bql_unlock();
    migration_rate_reset();
    ret = qemu_savevm_state_iterate(f, false);
    bql_lock();
    if (ret < 0) {
        return ret;
    }
    if (tlm_engine_cancelled(m->engine)) {
        return -ECANCELED;
    }
    tlm_mark(m, TLM_MARK_RAM);
    if (migrate_pause_before_switchover()) {
        tlm_set_stage(m, MIGRATION_TLM_STAGE_PRE_SWITCHOVER);
    }
    return 0;
}

bool tlm_switchover_allowed(void)
{
    TlmMigration *m = &migration;

    if (!m->running) {
        return true;
    }
    if (!runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        tlm_fail(migrate_get_current(), "The guest was started after it had "
                 "been stopped for the switchover; its run state is '%s'",
                 RunState_str(runstate_get()));
        return false;
    }
    tlm_mark(m, TLM_MARK_SWITCHOVER);
    tlm_set_stage(m, MIGRATION_TLM_STAGE_DEVICE);
    return true;
}

void tlm_ram_completed(void)
{
    TlmMigration *m = &migration;

    if (m->running) {
        tlm_watchdog_commit();
        /* QEMU's own code has sent the last of RAM; count its pages, too */
        tlm_engine_completed(m->engine, ram_get_total_transferred_pages() -
                                        m->stopped_pages);
    }
}

void tlm_device_state_saved(void)
{
    if (migration.running) {
        tlm_mark(&migration, TLM_MARK_DEVICE);
    }
}

void tlm_finished(void)
{
    TlmMigration *m = &migration;

    if (m->running) {
        tlm_throttle_end(false);
        tlm_placement_end();
        tlm_mark(m, TLM_MARK_END);
        tlm_set_stage(m, MIGRATION_TLM_STAGE_DONE);
    }
}

void tlm_cancel(void)
{
    if (migration.running) {
        tlm_engine_cancel(migration.engine);
    } else {
        tlm_connect_cancel();
    }
}

void tlm_fill_info(MigrationInfo *info)
{
    tlm_lease_renew();
    info->tlm = tlm_info(&migration);
}

void qmp_migrate_tlm_switchover(Error **errp)
{
    TlmMigration *m = &migration;
    bool live = false;

    if (m->running) {
        QEMU_LOCK_GUARD(&m->lock);
        live = m->stage == MIGRATION_TLM_STAGE_LIVE ||
               m->stage == MIGRATION_TLM_STAGE_READY;
        m->switchover_requested |= live;
    }
    if (!live) {
        error_setg(errp, "No migration with capability 'tlm' is in its "
                   "live stage");
        return;
    }
    tlm_engine_interrupt(m->engine);
}
