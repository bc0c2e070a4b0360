/*
 * TLM: what query-migrate and HMP's info migrate show
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "migration/migration.h"
#include "internal.h"
#include "placement.h"
#include "throttle.h"
#include "tlm.h"

/* The planner may be asked so much later than an epoch and a sync take */
#define PLAN_LATE_MS 100

/* From *@at_us of the downtime to a mark, which becomes *@at_us */
static uint64_t part_us(const TlmMigration *m, const MigrationState *s,
                        int64_t *at_us, TlmMark mark)
{
    int64_t begin_ns = s->downtime_start * SCALE_MS;
    int64_t end_us = s->downtime * (SCALE_MS / SCALE_US);
    int64_t from_us = *at_us;

    /* QEMU's own clock ticks in milliseconds: none may end after it */
    *at_us = MIN(MAX((m->mark_ns[mark] - begin_ns) / SCALE_US, from_us),
                 end_us);
    return *at_us - from_us;
}

/* Its parts add up to the downtime that QEMU itself reports */
static MigrationTlmDowntime *downtime(const TlmMigration *m,
                                      const MigrationState *s)
{
    MigrationTlmDowntime *d = g_new0(MigrationTlmDowntime, 1);
    int64_t at_us = 0;

    d->vm_stop = part_us(m, s, &at_us, TLM_MARK_STOPPED);
    d->sync = part_us(m, s, &at_us, TLM_MARK_SYNCED);
    d->ram = part_us(m, s, &at_us, TLM_MARK_RAM);
    d->hold = part_us(m, s, &at_us, TLM_MARK_SWITCHOVER);
    d->device = part_us(m, s, &at_us, TLM_MARK_DEVICE);
    d->switchover = s->downtime * (SCALE_MS / SCALE_US) - at_us;
    return d;
}

/*
 * When the guest was stopped for the switchover; 0: it was not yet.  QEMU
 * notes the beginning before it has come to its end.
 */
static int64_t stop_ns(const TlmMigration *m, const MigrationState *s)
{
    int64_t begin_ns = s->downtime_start * SCALE_MS;

    if (!m->mark_ns[TLM_MARK_STOPPING] ||
        begin_ns + SCALE_MS <= m->mark_ns[TLM_MARK_STOPPING]) {
        return 0;               /* it is that of an earlier migration */
    }
    return begin_ns;
}

static int64_t lost_ns(const TlmMigration *m, const MigrationState *s,
                       int64_t now_ns)
{
    int64_t lost_ns = tlm_throttle_paused_ns() + tlm_placement_lost_ns();
    int64_t begin_ns = stop_ns(m, s);

    return begin_ns ? lost_ns + MAX(0, now_ns - begin_ns) : lost_ns;
}

/* What was sent for a page beyond once, or will have to be */
static uint64_t resent_pages(const TlmEngineCounters *c)
{
    uint64_t sent = c->mtx + c->dtx + c->rest;
    uint64_t once = c->total - c->owed - c->forgotten;

    return sent - MIN(sent, once);
}

/*
 * Time goes on while the planner is not asked.  As long as that is no
 * longer than an epoch takes, the prediction stands; beyond that, the time
 * in which nothing is known to have got through comes on top.
 */
static void show_live(const TlmMigration *m, MigrationTlmInfo *t,
                      int64_t elapsed_ms, int64_t since_plan_ms)
{
    int64_t usual_ms = m->plan.epoch_ms + m->shown_sync_ns / SCALE_MS +
                       PLAN_LATE_MS;
    int64_t late_ms = MAX(0, since_plan_ms - usual_ms);

    if (!t->predicted_total) {
        return;                 /* nothing is known yet */
    }
    t->predicted_total = MAX((int64_t)t->predicted_total + late_ms,
                             elapsed_ms);
    t->eta = t->predicted_total - elapsed_ms;
}

/* The planner is not asked any more: go by what is left.  BQL held. */
static void show_stop(const TlmMigration *m, const MigrationState *s,
                      MigrationTlmInfo *t, int64_t now_ns)
{
    double queued = m->running ? tlm_multifd_queued_bytes() : 0;
    double arrived = MAX(t->stop_bytes - queued, 0);
    double left = tlm_bytes(m, tlm_engine_owed(m->engine)) + queued;
    int64_t begin_ns = m->mark_ns[TLM_MARK_SYNCED] ?: now_ns;
    /* A wait for the manager says nothing about the link */
    int64_t end_ns = m->mark_ns[TLM_MARK_RAM] ?: now_ns;

    if (arrived > 0) {
        t->progress += (100 - t->progress) * arrived / (arrived + left);
    }
    t->eta = tlm_planner_stop_eta_ms(m->plan.bandwidth,
                                     (end_ns - begin_ns) / 1e9, arrived, left);
    t->predicted_total = (now_ns - m->mark_ns[TLM_MARK_START]) / SCALE_MS +
                         t->eta;
    t->predicted_downtime = now_ns / SCALE_MS - s->downtime_start + t->eta;
}

/* The clock goes on in every state, whoever is waited for */
static void show_underway(const TlmMigration *m, const MigrationState *s,
                          MigrationTlmInfo *t, int64_t now_ns)
{
    int64_t elapsed_ms = (now_ns - m->mark_ns[TLM_MARK_START]) / SCALE_MS;

    if (m->mark_ns[TLM_MARK_STOPPED]) {
        show_stop(m, s, t, now_ns);
    } else {
        show_live(m, t, elapsed_ms,
                  (now_ns - m->plan_ns) / SCALE_MS);
    }
    if (t->has_deadline) {
        /* Where nothing is predicted, the time that has passed counts */
        t->slack = (int64_t)t->deadline - MAX((int64_t)t->predicted_total,
                                              elapsed_ms);
        t->bound_reachable &= elapsed_ms < (int64_t)t->deadline;
    }
}

/* How it has ended; the predictions stay what they were */
static void show_end(const TlmMigration *m, const MigrationState *s,
                     MigrationTlmInfo *t)
{
    t->stage = MIGRATION_TLM_STAGE_DONE;
    t->eta = 0;
    if (s->state != MIGRATION_STATUS_COMPLETED) {
        t->has_slack = false;
        return;
    }
    t->progress = 100;
    t->slack = (int64_t)t->deadline - s->total_time;
    t->bound_reachable = !t->has_deadline || t->slack >= 0;
    t->downtime = downtime(m, s);
}

MigrationTlmInfo *tlm_info(TlmMigration *m)
{
    MigrationState *s = migrate_get_current();
    uint64_t bound = s->parameters.tlm_time_bound;
    TlmEngineCounters c;
    int64_t now_ns;
    MigrationTlmInfo *t;

    if (!m->engine) {
        return NULL;
    }
    tlm_engine_counters(m->engine, &c);

    QEMU_LOCK_GUARD(&m->lock);

    /* "savevm" begins, and completes, something of its own */
    if (!m->valid ||
        m->mark_ns[TLM_MARK_START] != s->start_time * SCALE_MS) {
        return NULL;
    }

    now_ns = m->mark_ns[TLM_MARK_END] ?:
             qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    t = g_new0(MigrationTlmInfo, 1);
    t->stage = m->stage;
    t->progress = m->plan.progress * 100;
    t->eta = m->plan.eta_ms;
    t->predicted_total = m->plan.predicted_total_ms;
    t->predicted_downtime = m->plan.predicted_downtime_ms;
    t->smallest_bound = m->plan.smallest_bound_ms;
    t->bound_reachable = m->plan.bound_reachable;
    t->downtime_reachable = m->plan.downtime_reachable;
    t->has_deadline = t->has_slack = bound;
    t->deadline = bound;
    t->mtx_bytes = tlm_bytes(m, c.mtx);
    t->dtx_bytes = tlm_bytes(m, c.dtx);
    t->stop_bytes = tlm_bytes(m, c.rest);
    t->resent_bytes = tlm_bytes(m, resent_pages(&c));
    t->skipped_bytes = tlm_bytes(m, c.forgotten);
    t->passed_bytes = tlm_bytes(m, c.passed);
    t->unsent_bytes = tlm_bytes(m, m->shown_counts.clean_unsent);
    t->dirty_bytes = tlm_bytes(m, m->shown_counts.dirty);
    t->hot_bytes = tlm_bytes(m, m->shown_counts.hot);
    t->bandwidth = m->plan.bandwidth;
    t->dirty_rate = m->plan.dirty_rate;
    t->epochs = c.epochs;
    t->sync_time = m->shown_sync_ns / SCALE_US;
    t->decision = g_strdup(tlm_plan_reason_str(m->plan.reason));
    t->guest_speed = m->shown_speed;
    t->lost_work = lost_ns(m, s, now_ns) / SCALE_MS;
    tlm_placement_fill_info(t);
    if (m->mark_ns[TLM_MARK_LIVE]) {
        int64_t end_ns = m->mark_ns[TLM_MARK_STOPPING] ?: now_ns;

        t->live_time = (end_ns - m->mark_ns[TLM_MARK_LIVE]) / SCALE_MS;
    }
    /* The status is "completed" a moment before we are told */
    if (m->mark_ns[TLM_MARK_END] ||
        s->state == MIGRATION_STATUS_COMPLETED) {
        show_end(m, s, t);
    } else {
        show_underway(m, s, t, now_ns);
    }
    /* What has just reached the kernel has not arrived: no step back */
    t->progress = m->shown_progress = MAX(t->progress, m->shown_progress);
    return t;
}

void tlm_hmp_info(Monitor *mon, const MigrationTlmInfo *t)
{
    monitor_printf(mon, "tlm stage: %s\n", MigrationTlmStage_str(t->stage));
    monitor_printf(mon, "tlm progress: %.1f %%\n", t->progress);
    monitor_printf(mon, "tlm eta: %" PRIu64 " ms\n", t->eta);
    monitor_printf(mon, "tlm predicted total: %" PRIu64 " ms\n",
                   t->predicted_total);
    monitor_printf(mon, "tlm predicted downtime: %" PRIu64 " ms\n",
                   t->predicted_downtime);
    if (t->has_slack) {
        monitor_printf(mon, "tlm deadline: %" PRIu64 " ms, slack %" PRId64
                       " ms%s\n", t->deadline, t->slack,
                       t->bound_reachable ? "" : " (bound out of reach)");
    }
    monitor_printf(mon, "tlm mtx: %" PRIu64 " kbytes\n", t->mtx_bytes >> 10);
    monitor_printf(mon, "tlm dtx: %" PRIu64 " kbytes\n", t->dtx_bytes >> 10);
    monitor_printf(mon, "tlm stop: %" PRIu64 " kbytes\n",
                   t->stop_bytes >> 10);
    monitor_printf(mon, "tlm resent: %" PRIu64 " kbytes\n",
                   t->resent_bytes >> 10);
    monitor_printf(mon, "tlm skipped: %" PRIu64 " kbytes\n",
                   t->skipped_bytes >> 10);
    monitor_printf(mon, "tlm unsent: %" PRIu64 " kbytes\n",
                   t->unsent_bytes >> 10);
    monitor_printf(mon, "tlm dirty: %" PRIu64 " kbytes, hot %" PRIu64
                   " kbytes\n", t->dirty_bytes >> 10, t->hot_bytes >> 10);
    monitor_printf(mon, "tlm bandwidth: %" PRIu64 " kbytes/s\n",
                   t->bandwidth >> 10);
    monitor_printf(mon, "tlm dirty rate: %" PRIu64 " kbytes/s\n",
                   t->dirty_rate >> 10);
    monitor_printf(mon, "tlm epochs: %" PRIu64 "\n", t->epochs);
    monitor_printf(mon, "tlm decision: %s\n", t->decision);
    monitor_printf(mon, "tlm guest speed: %.1f %%, lost work %" PRIu64
                   " ms\n", t->guest_speed * 100, t->lost_work);
    if (t->has_overcommit_cpus) {
        monitor_printf(mon, "tlm overcommit: %u host CPUs by %s\n",
                       t->overcommit_cpus, t->overcommit_method);
    }
    if (t->overcommit_note) {
        monitor_printf(mon, "tlm overcommit note: %s\n",
                       t->overcommit_note);
    }
    if (t->downtime) {
        monitor_printf(mon, "tlm downtime: vm stop %" PRIu64 " us, sync %"
                       PRIu64 " us, ram %" PRIu64 " us, hold %" PRIu64
                       " us, device %" PRIu64 " us, switchover %" PRIu64
                       " us\n",
                       t->downtime->vm_stop, t->downtime->sync,
                       t->downtime->ram, t->downtime->hold,
                       t->downtime->device, t->downtime->switchover);
    }
}
