/*
 * TLM: what the planner is told, and what is told of its decisions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qapi/qapi-events-migration-tlm.h"
#include "system/runstate.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "internal.h"
#include "trace.h"

/* Epochs in a row that think differently of the bound before it is said */
#define BOUND_DOUBTS 2

/* As migration_can_switchover() in migration.c */
static bool can_switchover(MigrationState *s)
{
    return !migrate_switchover_ack() || s->switchover_acked ||
           !runstate_is_running();
}

uint64_t tlm_pages_sent(void)
{
    return stat64_get(&tlm.mtx_pages) + stat64_get(&tlm.dtx_pages);
}

static uint64_t device_bytes(void)
{
    uint64_t must_precopy, can_postcopy;
    uint64_t ram = stat64_get(&tlm.owed_pages) << tlm.page_bits;

    /* RAM's part of it does not sync the dirty log while TLM runs */
    qemu_savevm_state_pending_exact(&must_precopy, &can_postcopy);
    must_precopy += can_postcopy;
    return must_precopy - MIN(ram, must_precopy);
}

/* The share of the last @ns in which the vCPUs ran */
static double guest_speed(int64_t ns)
{
    int64_t paused_ns = tlm_throttle_paused_ns() - tlm.epoch_begin_paused_ns;

    if (!runstate_is_running() || ns <= paused_ns) {
        return 0;
    }
    return tlm_placement_share() * (ns - paused_ns) / ns;
}

/* How long ago a page that is called hot was written to, at most */
static int64_t hot_ns(int64_t now_ns)
{
    int64_t begin_ns = MAX(tlm.aged_before_ns, tlm.mark_ns[TLM_MARK_LIVE]);

    return now_ns - begin_ns;
}

/* Tell of a bound that is out of reach, or is in reach again, when sure */
static void tell_bound(const TlmPlanParams *params,
                       const TlmPlanDecision *decision)
{
    bool tell = false;

    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        if (decision->bound_reachable != tlm.bound_lost) {
            tlm.bound_doubts = 0;
        } else if (++tlm.bound_doubts >= BOUND_DOUBTS ||
                   decision->action != TLM_PLAN_CONTINUE) {
            tlm.bound_doubts = 0;
            tlm.bound_lost = !decision->bound_reachable;
            tell = true;
        }
    }
    if (tell) {
        qapi_event_send_migration_tlm_bound(params->time_bound_ms,
                                            decision->bound_reachable,
                                            decision->smallest_bound_ms);
    }
}

void tlm_tell_bound_passed(uint64_t bound_ms, int64_t elapsed_ms)
{
    uint64_t smallest_ms;

    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        if (tlm.bound_lost) {
            return;
        }
        tlm.bound_lost = true;
        smallest_ms = MAX(tlm.plan.smallest_bound_ms, (uint64_t)elapsed_ms);
    }
    qapi_event_send_migration_tlm_bound(bound_ms, false, smallest_ms);
}

void tlm_ask_planner(TlmPlanDecision *decision)
{
    MigrationState *s = migrate_get_current();
    const MigrationParameters *p = &s->parameters;
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    TlmPlanParams params = {
        .time_bound_ms = p->tlm_time_bound,
        .downtime_limit_ms = p->downtime_limit,
        .max_bandwidth = p->max_bandwidth,
        .switchover_bandwidth = p->avail_switchover_bandwidth,
        .epoch_ms = p->tlm_epoch,
        .converge = p->tlm_converge == MIGRATION_TLM_CONVERGE_AUTO ?
                    TLM_PLAN_CONVERGE_AUTO : TLM_PLAN_CONVERGE_NONE,
        .bound_action = p->tlm_bound_action ==
                        MIGRATION_TLM_BOUND_ACTION_CANCEL ?
                        TLM_PLAN_BOUND_CANCEL : TLM_PLAN_BOUND_COMPLETE,
    };
    TlmPlanSample sample = {
        .now_ns = now_ns - tlm.mark_ns[TLM_MARK_START],
        .epoch_ns = now_ns - tlm.epoch_begin_ns,
        .sync_ns = tlm.sync_ns,
        .idle_ns = now_ns - tlm.epoch_begin_ns - tlm.epoch_busy_ns,
        .total_bytes = tlm.total_pages << tlm.page_bits,
        .unsent_bytes = tlm.counts.clean_unsent << tlm.page_bits,
        .dirty_bytes = tlm.counts.dirty << tlm.page_bits,
        .hot_bytes = tlm.counts.hot << tlm.page_bits,
        .hot_ns = hot_ns(now_ns),
        .dirtied_bytes = tlm.counts.fresh << tlm.page_bits,
        .sent_bytes = migration_transferred_bytes() - tlm.epoch_begin_bytes,
        .sent_pages_bytes = (tlm_pages_sent() - tlm.epoch_begin_pages)
                            << tlm.page_bits,
        .zero_bytes = (stat64_get(&mig_stats.zero_pages) -
                       tlm.epoch_begin_zero_pages) << tlm.page_bits,
        .device_bytes = device_bytes(),
        .queued_bytes = tlm_queued_bytes(),
        .burst_bytes = tlm.burst.bytes,
        .burst_ns = tlm.burst.ns,
        .guest_speed = guest_speed(now_ns - tlm.epoch_begin_ns),
        .mtx_done = tlm.walk.block == tlm.nr_blocks,
        .can_switchover = can_switchover(s),
    };

    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        sample.held_ns = tlm.pacer.held_ns - tlm.epoch_begin_held_ns;
        sample.switchover_requested = tlm.switchover_requested;
        tlm.switchover_noticed = tlm.switchover_requested;
    }
    tlm_planner_step(tlm.planner, &params, &sample, decision);
    tell_bound(&params, decision);
    trace_tlm_plan(tlm.epoch, decision->action, decision->reason,
                   decision->epoch_ms, decision->predicted_total_ms,
                   decision->predicted_downtime_ms);
    WITH_QEMU_LOCK_GUARD(&tlm.lock) {
        tlm.plan = *decision;
        tlm.plan_ns = now_ns;
        tlm.shown_counts = tlm.counts;
        tlm.shown_sync_ns = tlm.sync_ns;
        tlm.shown_speed = sample.guest_speed;
    }
}
