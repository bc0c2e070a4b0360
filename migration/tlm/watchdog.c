/*
 * TLM: looks after a migration that stands still
 *
 * A thread that waits for a network that is gone keeps the coordinator from
 * asking the planner.  The main loop sees to it that a guest which has been
 * slowed down runs meanwhile, and that the migration ends if the user would
 * rather have it cancelled than overrun its bound (tlm-bound-action).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/qemu-file.h"
#include "internal.h"

#define TICK_MS 200
/* Nothing got through for as long: there is no use in slowing the guest */
#define RELEASE_MS 500
/* For as long: the network is gone */
#define STALLED_MS 2000

/* All under the BQL */
static struct {
    QEMUTimer *timer;           /* of the main loop; NULL: not on duty */
    uint64_t sent;              /* bytes, less what the kernel has queued */
    int64_t since_ms;           /* when that was reached */
} watchdog;

static void give_up(MigrationState *s, uint64_t bound_ms, int64_t stalled_ms)
{
    Error *err = NULL;

    error_setg(&err, "The time bound of %" PRIu64 " ms has passed, and "
               "nothing could be sent for %" PRId64 " ms: check the network",
               bound_ms, stalled_ms);
    migrate_set_error(s, err);
    error_free(err);

    /* Whoever waits for the network wakes up and finds it broken */
    multifd_send_cancel();
    QEMU_LOCK_GUARD(&s->qemu_file_lock);
    if (s->to_dst_file) {
        qemu_file_shutdown(s->to_dst_file);
    }
}

static void tick(void *opaque)
{
    MigrationState *s = migrate_get_current();
    int64_t now_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    uint64_t queued = tlm_queued_bytes();
    uint64_t sent = migration_transferred_bytes() - queued;
    uint64_t bound_ms = s->parameters.tlm_time_bound;

    /* Before the switchover it is up to the user to let it go on */
    if (sent != watchdog.sent ||
        s->state == MIGRATION_STATUS_PRE_SWITCHOVER) {
        watchdog.sent = sent;
        watchdog.since_ms = now_ms;
    }
    /* A long sync of the dirty log is no stall: nothing is queued then */
    if (queued && now_ms - watchdog.since_ms >= RELEASE_MS &&
        tlm.stage == MIGRATION_TLM_STAGE_LIVE) {
        tlm_throttle_set(1);
    }
    if (bound_ms &&
        s->parameters.tlm_bound_action == MIGRATION_TLM_BOUND_ACTION_CANCEL &&
        now_ms - watchdog.since_ms >= STALLED_MS &&
        now_ms - s->start_time >= (int64_t)bound_ms) {
        give_up(s, bound_ms, now_ms - watchdog.since_ms);
        return;
    }
    timer_mod(watchdog.timer, now_ms + TICK_MS);
}

/* The channels are set up; BQL held */
void tlm_watchdog_start(void)
{
    watchdog.sent = 0;
    watchdog.since_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    watchdog.timer = timer_new_ms(QEMU_CLOCK_REALTIME, tick, NULL);
    timer_mod(watchdog.timer, watchdog.since_ms + TICK_MS);
}

/* Before the channels go, or the destination may own the guest; BQL held */
void tlm_watchdog_stop(void)
{
    g_clear_pointer(&watchdog.timer, timer_free);
}
