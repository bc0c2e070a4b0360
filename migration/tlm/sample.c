/*
 * TLM: samples for the planner, and the event about the bound
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
#include "checkpoint/checkpoint.h"
#include "checkpoint/options.h"
#include "internal.h"
#include "placement.h"
#include "postcopy.h"
#include "throttle.h"
#include "tlm.h"
#include "trace.h"

/* So many epochs in a row must think differently of the bound to report it */
#define BOUND_DOUBTS 2

/* As migration_can_switchover() in migration.c */
static bool can_switchover(MigrationState *s)
{
    return !migrate_switchover_ack() || s->switchover_acked ||
           !runstate_is_running();
}

static uint64_t device_bytes(const TlmMigration *m)
{
    uint64_t must_precopy, can_postcopy;
    uint64_t ram = tlm_bytes(m, tlm_engine_owed(m->engine));

    /* RAM's handler does not sync the dirty log while TLM runs */
    qemu_savevm_state_pending_exact(&must_precopy, &can_postcopy);
    must_precopy += can_postcopy;
    return must_precopy - MIN(ram, must_precopy);
}

/* The share of the last @ns in which the vCPUs ran */
static double guest_speed(const TlmMigration *m, int64_t ns)
{
    int64_t paused_ns = tlm_throttle_paused_ns() - m->begin_paused_ns;

    if (!runstate_is_running() || ns <= paused_ns) {
        return 0;
    }
    return tlm_placement_share() * (ns - paused_ns) / ns;
}

/* Report a bound that is out of reach, or in reach again, when it is sure */
static void tell_bound(TlmMigration *m, const TlmPlanParams *params,
                       const TlmPlanDecision *decision)
{
    bool tell = false;

    WITH_QEMU_LOCK_GUARD(&m->lock) {
        if (decision->bound_reachable != m->bound_lost) {
            m->bound_doubts = 0;
        } else if (++m->bound_doubts >= BOUND_DOUBTS ||
                   decision->action != TLM_PLAN_CONTINUE) {
            m->bound_doubts = 0;
            m->bound_lost = !decision->bound_reachable;
            tell = true;
        }
    }
    if (tell) {
        qapi_event_send_migration_tlm_bound(params->time_bound_ms,
                                            decision->bound_reachable,
                                            decision->smallest_bound_ms);
    }
}

void tlm_tell_bound_passed(TlmMigration *m, uint64_t bound_ms,
                           int64_t elapsed_ms)
{
    uint64_t smallest_ms;

    WITH_QEMU_LOCK_GUARD(&m->lock) {
        if (m->bound_lost) {
            return;
        }
        m->bound_lost = true;
        smallest_ms = MAX(m->plan.smallest_bound_ms, (uint64_t)elapsed_ms);
    }
    qapi_event_send_migration_tlm_bound(bound_ms, false, smallest_ms);
}

void tlm_sample_begin(TlmMigration *m)
{
    tlm_engine_begin(m->engine);
    m->begin_zero_pages = stat64_get(&mig_stats.zero_pages);
    m->begin_paused_ns = tlm_throttle_paused_ns();
}

static TlmPlanConverge converge(const MigrationParameters *p)
{
    if (tlm_is_checkpoint()) {
        /* What a checkpoint leaves is copied: it need not become less */
        return TLM_PLAN_CONVERGE_NONE;
    }
    if (tlm_postcopy_wanted()) {
        return TLM_PLAN_CONVERGE_POSTCOPY;
    }
    return p->tlm_converge == MIGRATION_TLM_CONVERGE_AUTO ?
           TLM_PLAN_CONVERGE_AUTO : TLM_PLAN_CONVERGE_NONE;
}

static TlmPlanBoundAction bound_action(const MigrationParameters *p)
{
    switch (p->tlm_bound_action) {
    case MIGRATION_TLM_BOUND_ACTION_CANCEL:
        return TLM_PLAN_BOUND_CANCEL;
    case MIGRATION_TLM_BOUND_ACTION_POSTCOPY:
        return tlm_is_checkpoint() ? TLM_PLAN_BOUND_COMPLETE
                                   : TLM_PLAN_BOUND_POSTCOPY;
    default:
        return TLM_PLAN_BOUND_COMPLETE;
    }
}

void tlm_ask_planner(TlmMigration *m, TlmPlanDecision *decision)
{
    MigrationState *s = migrate_get_current();
    const MigrationParameters *p = &s->parameters;
    const MigrationTlmCheckpointOptions *checkpoint = tlm_checkpoint_options();
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    TlmPlanParams params = {
        .time_bound_ms = p->tlm_time_bound,
        .downtime_limit_ms = p->downtime_limit,
        .max_bandwidth = p->max_bandwidth,
        .switchover_bandwidth = p->avail_switchover_bandwidth,
        .epoch_ms = p->tlm_epoch,
        .postcopy_bandwidth = p->max_postcopy_bandwidth,
        .converge = converge(p),
        .bound_action = bound_action(p),
        .hold = checkpoint && checkpoint->hold,
        .keep_bytes = tlm_checkpoint_capacity(),
    };
    TlmPlanSample sample = {
        .now_ns = now_ns - m->mark_ns[TLM_MARK_START],
        .zero_bytes = tlm_bytes(m, stat64_get(&mig_stats.zero_pages) -
                                   m->begin_zero_pages),
        .device_bytes = device_bytes(m),
        .can_switchover = can_switchover(s),
    };

    tlm_engine_sample(m->engine, now_ns, &sample);
    sample.guest_speed = guest_speed(m, sample.epoch_ns);
    tlm_engine_heed(m->engine);
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        sample.switchover_requested = m->switchover_requested;
    }
    tlm_planner_step(m->planner, &params, &sample, decision);
    tell_bound(m, &params, decision);
    trace_tlm_plan(decision->action, tlm_plan_reason_str(decision->reason),
                   decision->epoch_ms, decision->predicted_total_ms,
                   decision->predicted_downtime_ms);
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        m->plan = *decision;
        m->plan_ns = now_ns;
        m->shown_counts = tlm_engine_counts(m->engine);
        m->shown_sync_ns = tlm_engine_sync_ns(m->engine);
        m->shown_speed = sample.guest_speed;
    }
}
