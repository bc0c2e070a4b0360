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

/* Time between two marks; 0 if one of them was not reached */
static int64_t between(int from, int to)
{
    if (!tlm.mark_ns[from] || !tlm.mark_ns[to]) {
        return 0;
    }
    return MAX(0, tlm.mark_ns[to] - tlm.mark_ns[from]);
}

static MigrationTlmDowntime *downtime(const MigrationState *s)
{
    MigrationTlmDowntime *d = g_new0(MigrationTlmDowntime, 1);
    int64_t stopped_ns = tlm.mark_ns[TLM_MARK_STOPPED] -
                         s->downtime_start * SCALE_MS;
    /* The status is "completed" a moment before we are told */
    int64_t end_ns = tlm.mark_ns[TLM_MARK_END] ?:
                     (s->downtime_start + s->downtime) * SCALE_MS;

    d->vm_stop = MAX(0, stopped_ns) / SCALE_US;
    d->sync = between(TLM_MARK_STOPPED, TLM_MARK_SYNCED) / SCALE_US;
    d->ram = between(TLM_MARK_SYNCED, TLM_MARK_RAM) / SCALE_US;
    d->device = between(TLM_MARK_RAM, TLM_MARK_DEVICE) / SCALE_US;
    d->switchover = MAX(0, end_ns - tlm.mark_ns[TLM_MARK_DEVICE]) / SCALE_US;
    return d;
}

static int64_t lost_ns(const MigrationState *s)
{
    int64_t now_ns = tlm.mark_ns[TLM_MARK_END] ?:
                     qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t lost_ns = tlm_throttle_paused_ns() + tlm_placement_lost_ns();

    if (tlm.mark_ns[TLM_MARK_STOPPED]) {
        lost_ns += now_ns - s->downtime_start * SCALE_MS;
    }
    return lost_ns;
}

/* What was sent for a page beyond once, or will have to be */
static uint64_t resent_pages(void)
{
    uint64_t sent = stat64_get(&tlm.mtx_pages) + stat64_get(&tlm.dtx_pages) +
                    stat64_get(&tlm.stop_pages);
    uint64_t once = tlm.total_pages - stat64_get(&tlm.owed_pages) -
                    stat64_get(&tlm.forgotten_pages);

    return sent - MIN(sent, once);
}

/* The planner is not asked any more: go by what is left.  BQL held. */
static void show_stop(const MigrationState *s, MigrationTlmInfo *t)
{
    double queued = tlm.running ? tlm_queued_bytes() : 0;
    double arrived = MAX(t->stop_bytes - queued, 0);
    double left = (stat64_get(&tlm.owed_pages) << tlm.page_bits) + queued;
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t begin_ns = tlm.mark_ns[TLM_MARK_SYNCED] ?: now_ns;

    if (arrived > 0) {
        t->progress += (100 - t->progress) * arrived / (arrived + left);
    }
    t->eta = tlm_planner_stop_eta_ms(tlm.plan.bandwidth,
                                     (now_ns - begin_ns) / 1e9, arrived, left);
    t->predicted_total = (now_ns - tlm.mark_ns[TLM_MARK_START]) / SCALE_MS +
                         t->eta;
    t->predicted_downtime = now_ns / SCALE_MS - s->downtime_start + t->eta;
    t->slack = (int64_t)t->deadline - (int64_t)t->predicted_total;
}

void tlm_fill_info(MigrationInfo *info)
{
    MigrationState *s = migrate_get_current();
    uint64_t bound = s->parameters.tlm_time_bound;
    MigrationTlmInfo *t;

    QEMU_LOCK_GUARD(&tlm.lock);

    /* "savevm" begins, and completes, something of its own */
    if (!tlm.valid ||
        tlm.mark_ns[TLM_MARK_START] != s->start_time * SCALE_MS) {
        return;
    }

    t = g_new0(MigrationTlmInfo, 1);
    t->stage = tlm.stage;
    t->progress = tlm.plan.progress * 100;
    t->eta = tlm.plan.eta_ms;
    t->predicted_total = tlm.plan.predicted_total_ms;
    t->predicted_downtime = tlm.plan.predicted_downtime_ms;
    t->smallest_bound = tlm.plan.smallest_bound_ms;
    t->bound_reachable = tlm.plan.bound_reachable;
    t->downtime_reachable = tlm.plan.downtime_reachable;
    t->has_deadline = t->has_slack = bound;
    t->deadline = bound;
    t->slack = tlm.plan.slack_ms;
    t->mtx_bytes = stat64_get(&tlm.mtx_pages) << tlm.page_bits;
    t->dtx_bytes = stat64_get(&tlm.dtx_pages) << tlm.page_bits;
    t->stop_bytes = stat64_get(&tlm.stop_pages) << tlm.page_bits;
    t->resent_bytes = resent_pages() << tlm.page_bits;
    t->skipped_bytes = stat64_get(&tlm.forgotten_pages) << tlm.page_bits;
    t->passed_bytes = stat64_get(&tlm.passed_pages) << tlm.page_bits;
    t->unsent_bytes = tlm.shown_counts.clean_unsent << tlm.page_bits;
    t->dirty_bytes = tlm.shown_counts.dirty << tlm.page_bits;
    t->hot_bytes = tlm.shown_counts.hot << tlm.page_bits;
    t->bandwidth = tlm.plan.bandwidth;
    t->dirty_rate = tlm.plan.dirty_rate;
    t->epochs = tlm.epoch;
    t->sync_time = tlm.shown_sync_ns / SCALE_US;
    t->decision = g_strdup(tlm.plan.reason);
    t->guest_speed = tlm.shown_speed;
    t->lost_work = lost_ns(s) / SCALE_MS;
    tlm_placement_fill_info(t);
    if (tlm.mark_ns[TLM_MARK_LIVE]) {
        int64_t end_ns = tlm.mark_ns[TLM_MARK_STOPPING] ?:
                         tlm.mark_ns[TLM_MARK_END] ?:
                         qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        t->live_time = (end_ns - tlm.mark_ns[TLM_MARK_LIVE]) / SCALE_MS;
    }
    if (t->stage == MIGRATION_TLM_STAGE_STOP) {
        show_stop(s, t);
    }
    /* What has just reached the kernel has not arrived: no step back */
    t->progress = tlm.shown_progress = MAX(t->progress, tlm.shown_progress);
    if (s->state == MIGRATION_STATUS_COMPLETED) {
        t->stage = MIGRATION_TLM_STAGE_DONE;
        t->progress = 100;
        t->eta = 0;
        t->downtime = downtime(s);
    }
    info->tlm = t;
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
                       PRIu64 " us, ram %" PRIu64 " us, device %" PRIu64
                       " us, switchover %" PRIu64 " us\n",
                       t->downtime->vm_stop, t->downtime->sync,
                       t->downtime->ram, t->downtime->device,
                       t->downtime->switchover);
    }
}
