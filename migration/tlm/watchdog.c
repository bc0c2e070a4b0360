/*
 * TLM: watches for a migration that stands still, and for its bound
 *
 * A thread that waits for a network that is gone keeps the coordinator from
 * asking the planner.  Meanwhile the main loop lets a slowed guest run.  When
 * the bound passes, it reports that, and ends the migration if the user wants
 * a cancel rather than an overrun (tlm-bound-action).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/qemu-file.h"
#include "continue.h"
#include "throttle.h"
#include "watchdog.h"

#define TICK_MS 200
/* Nothing got through for so long: slowing the guest is of no use */
#define RELEASE_MS 500
/* For as long: the network is gone */
#define STALLED_MS 2000

static struct {
    /* All under the BQL */
    TlmMigration *m;
    QEMUTimer *timer;           /* of the main loop; NULL: not on duty */
    uint64_t sent;              /* bytes, less what the kernel has queued */
    int64_t since_ms;           /* when that was reached */
    bool committed;             /* the destination may own the guest */
} watchdog;

/*
 * The manager has not said "migrate-continue" in time: the stopped guest goes
 * on at the source.
 */
static void give_up_wait(MigrationState *s, uint64_t bound_ms)
{
    tlm_fail(s, "The time bound of %" PRIu64 " ms has passed in "
             "pre-switchover, without 'migrate-continue'", bound_ms);
    migrate_set_state(&s->state, MIGRATION_STATUS_PRE_SWITCHOVER,
                      MIGRATION_STATUS_FAILED);
    tlm_continue_post(s);
}

static void give_up_stall(MigrationState *s, uint64_t bound_ms,
                          int64_t stalled_ms)
{
    tlm_fail(s, "The time bound of %" PRIu64 " ms has passed, and "
             "nothing could be sent for %" PRId64 " ms: check the network",
             bound_ms, stalled_ms);

    /* All threads that wait for the network wake up and find it broken */
    multifd_send_cancel();
    QEMU_LOCK_GUARD(&s->qemu_file_lock);
    if (s->to_dst_file) {
        qemu_file_shutdown(s->to_dst_file);
    }
}

/* The bound has passed.  True: there is nothing left to look after. */
static bool bound_passed(MigrationState *s, uint64_t bound_ms, int64_t now_ms)
{
    int64_t stalled_ms = now_ms - watchdog.since_ms;

    tlm_tell_bound_passed(watchdog.m, bound_ms, now_ms - s->start_time);
    if (s->parameters.tlm_bound_action !=
        MIGRATION_TLM_BOUND_ACTION_CANCEL || watchdog.committed) {
        return false;
    }
    if (s->state == MIGRATION_STATUS_PRE_SWITCHOVER) {
        give_up_wait(s, bound_ms);
        return true;
    }
    if (stalled_ms >= STALLED_MS) {
        give_up_stall(s, bound_ms, stalled_ms);
        return true;
    }
    return false;
}

static void tick(void *opaque)
{
    MigrationState *s = migrate_get_current();
    TlmMigration *m = opaque;
    int64_t now_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    uint64_t sent = migration_transferred_bytes() - tlm_multifd_queued_bytes();
    uint64_t bound_ms = s->parameters.tlm_time_bound;
    int64_t deadline_ms = s->start_time + (int64_t)bound_ms;
    int64_t next_ms = now_ms + TICK_MS;

    if (m->stage == MIGRATION_TLM_STAGE_DONE) {
        return;
    }
    if (sent != watchdog.sent || !tlm_multifd_sending(&m->sink)) {
        watchdog.sent = sent;
        watchdog.since_ms = now_ms;
    }
    if (now_ms - watchdog.since_ms >= RELEASE_MS &&
        (m->stage == MIGRATION_TLM_STAGE_LIVE ||
         m->stage == MIGRATION_TLM_STAGE_READY)) {
        tlm_throttle_set(1);
    }
    if (bound_ms && now_ms < deadline_ms) {
        next_ms = MIN(next_ms, deadline_ms);
    } else if (bound_ms && bound_passed(s, bound_ms, now_ms)) {
        return;
    }
    timer_mod(watchdog.timer, next_ms);
}

void tlm_watchdog_start(TlmMigration *m)
{
    watchdog.m = m;
    watchdog.sent = 0;
    watchdog.since_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    watchdog.committed = false;
    watchdog.timer = timer_new_ms(QEMU_CLOCK_REALTIME, tick, m);
    timer_mod(watchdog.timer, watchdog.since_ms + TICK_MS);
}

void tlm_watchdog_commit(void)
{
    watchdog.committed = true;
}

void tlm_watchdog_stop(void)
{
    g_clear_pointer(&watchdog.timer, timer_free);
}
