/*
 * TLM: what query-migrate shows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "checkpoint/chain.h"
#include "decision.h"
#include "internal.h"
#include "placement.h"
#include "postcopy.h"
#include "throttle.h"
#include "tlm.h"

/* The planner may be asked so much later than an epoch and a sync take */
#define PLAN_LATE_MS 100

/* From *@at_us of the downtime to a mark, which becomes *@at_us */
static uint64_t part_us(const TlmMigration *m, const MigrationState *s,
                        int64_t *at_us, TlmMark mark)
{
    int64_t begin_ns = s->downtime_start * SCALE_MS;
    int64_t resumed_ns = m->mark_ns[TLM_MARK_RESUMED];
    int64_t end_us = resumed_ns ? (resumed_ns - begin_ns) / SCALE_US :
                                  s->downtime * (SCALE_MS / SCALE_US);
    int64_t from_us = *at_us;

    /*
     * QEMU's own clock ticks in milliseconds: none may end after it.  The pause
     * of a checkpoint has an end of its own.
     */
    *at_us = MIN(MAX((m->mark_ns[mark] - begin_ns) / SCALE_US, from_us),
                 end_us);
    return *at_us - from_us;
}

static uint64_t us_between(const TlmMigration *m, TlmMark from, TlmMark to)
{
    return MAX(m->mark_ns[to] - m->mark_ns[from], 0) / SCALE_US;
}

/* QEMU says nothing between the stop of the guest and the switchover */
static void postcopy_downtime(const TlmMigration *m, MigrationTlmDowntime *d)
{
    uint64_t stop = us_between(m, TLM_MARK_STOPPING, TLM_MARK_SWITCHOVER);

    *(migrate_pause_before_switchover() ? &d->hold : &d->vm_stop) = stop;
    d->sync = us_between(m, TLM_MARK_SWITCHOVER, TLM_MARK_SYNCED);
    d->switchover = tlm_postcopy_downtime_us(m);
    d->switchover -= MIN(stop + d->sync, d->switchover);
}

/* Its parts add up to the downtime that QEMU itself reports */
static MigrationTlmDowntime *downtime(const TlmMigration *m,
                                      const MigrationState *s)
{
    MigrationTlmDowntime *d = g_new0(MigrationTlmDowntime, 1);
    int64_t at_us = 0;

    if (m->mark_ns[TLM_MARK_POSTCOPY]) {
        postcopy_downtime(m, d);
        return d;
    }
    d->vm_stop = part_us(m, s, &at_us, TLM_MARK_STOPPED);
    if (m->mark_ns[TLM_MARK_RESUMED]) {
        /* A checkpoint: what is sent comes after the pause */
        d->hold = part_us(m, s, &at_us, TLM_MARK_SWITCHOVER);
        d->device = part_us(m, s, &at_us, TLM_MARK_DEVICE);
        d->sync = part_us(m, s, &at_us, TLM_MARK_SYNCED);
        d->ram = part_us(m, s, &at_us, TLM_MARK_RAM);
        d->has_disks = m->disks_switched;
        if (d->has_disks) {
            d->disks = part_us(m, s, &at_us, TLM_MARK_DISKS);
        }
        return d;
    }
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
    /* After a checkpoint's pause, and in post-copy, the guest goes on */
    int64_t end_ns = m->mark_ns[TLM_MARK_RESUMED] ?:
                     m->mark_ns[TLM_MARK_TAKEN_OVER] ?: now_ns;

    return begin_ns ? lost_ns + MAX(0, end_ns - begin_ns) : lost_ns;
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
static void show_live(const TlmMigration *m, MigrationTlmForecast *f,
                      int64_t elapsed_ms, int64_t since_plan_ms)
{
    int64_t usual_ms = m->plan.epoch_ms + m->shown_sync_ns / SCALE_MS +
                       PLAN_LATE_MS;
    int64_t late_ms = MAX(0, since_plan_ms - usual_ms);

    if (!f->total) {
        return;                 /* nothing is known yet */
    }
    f->total = MAX((int64_t)f->total + late_ms, elapsed_ms);
    f->eta = f->total - elapsed_ms;
}

/* The planner is not asked any more: go by what is left.  BQL held. */
static void show_stop(const TlmMigration *m, const MigrationState *s,
                      MigrationTlmInfo *t, int64_t now_ns)
{
    MigrationTlmForecast *f = t->prediction;
    double queued = m->running ? tlm_multifd_queued_bytes() : 0;
    double arrived = MAX(t->ram->stop - queued, 0);
    double left = tlm_bytes(m, tlm_engine_owed(m->engine)) + queued;
    int64_t begin_ns = m->mark_ns[TLM_MARK_SYNCED] ?: now_ns;
    /* A wait for the manager says nothing about the link */
    int64_t end_ns = m->mark_ns[TLM_MARK_RAM] ?: now_ns;

    if (arrived > 0) {
        /* In this order, as rounding must not make it more than 100 */
        t->progress += (100 - t->progress) * (arrived / (arrived + left));
    }
    f->eta = tlm_planner_stop_eta_ms(m->plan.bandwidth,
                                     (end_ns - begin_ns) / 1e9, arrived, left);
    f->total = (now_ns - m->mark_ns[TLM_MARK_START]) / SCALE_MS + f->eta;
    f->downtime = m->mark_ns[TLM_MARK_RESUMED] ? s->downtime :
                  now_ns / SCALE_MS - s->downtime_start + f->eta;
}

/*
 * Post-copy sends what it owes once, so its end is known: at first by what was
 * foreseen of its speed, then by what was measured.  BQL held.
 */
static void show_postcopy(const TlmMigration *m, const MigrationState *s,
                          const TlmEngineCounters *c, MigrationTlmInfo *t,
                          int64_t elapsed_ms)
{
    MigrationTlmForecast *f = t->prediction;
    const MigrationTlmPostcopy *p = t->postcopy;
    double total = tlm_bytes(m, c->total);
    double cap = s->parameters.max_postcopy_bandwidth;
    double rate = m->plan.postcopy_bandwidth;

    t->progress = MAX(t->progress, 100 * (1 - p->remaining / MAX(total, 1)));
    f->eta = tlm_planner_stop_eta_ms(cap > 0 ? MIN(rate, cap) : rate,
                                     p->time / 1e3, p->owed - p->remaining,
                                     p->remaining);
    f->total = elapsed_ms + f->eta;
    if (p->downtime) {
        f->downtime = p->downtime / (SCALE_MS / SCALE_US);
    }
}

/* The clock goes on in every state, whoever is waited for */
static void show_underway(const TlmMigration *m, const MigrationState *s,
                          const TlmEngineCounters *c, MigrationTlmInfo *t,
                          int64_t now_ns)
{
    int64_t elapsed_ms = (now_ns - m->mark_ns[TLM_MARK_START]) / SCALE_MS;
    MigrationTlmBound *bound = t->bound;

    if (t->postcopy) {
        show_postcopy(m, s, c, t, elapsed_ms);
    } else if (m->mark_ns[TLM_MARK_STOPPED]) {
        show_stop(m, s, t, now_ns);
    } else {
        show_live(m, t->prediction, elapsed_ms,
                  (now_ns - m->plan_ns) / SCALE_MS);
    }
    if (bound) {
        /* Where nothing is predicted, the time that has passed counts */
        bound->has_slack = true;
        bound->slack = (int64_t)bound->time -
                       MAX((int64_t)t->prediction->total, elapsed_ms);
        bound->reachable &= elapsed_ms < (int64_t)bound->time;
    }
}

/* How it has ended; the predictions stay what they were */
static void show_end(const TlmMigration *m, const MigrationState *s,
                     MigrationTlmInfo *t)
{
    MigrationTlmBound *bound = t->bound;

    t->stage = MIGRATION_TLM_STAGE_DONE;
    t->prediction->eta = 0;
    if (s->state != MIGRATION_STATUS_COMPLETED) {
        return;
    }
    t->progress = 100;
    if (bound) {
        bound->has_slack = true;
        bound->slack = (int64_t)bound->time - s->total_time;
        bound->reachable = bound->slack >= 0;
    }
    t->downtime = downtime(m, s);
}

static MigrationTlmForecast *prediction(const TlmPlanDecision *plan)
{
    MigrationTlmForecast *f = g_new0(MigrationTlmForecast, 1);

    f->total = plan->predicted_total_ms;
    f->downtime = plan->predicted_downtime_ms;
    f->eta = plan->eta_ms;
    f->smallest_bound = plan->smallest_bound_ms;
    f->downtime_reachable = plan->downtime_reachable;
    return f;
}

/* NULL: there is none */
static MigrationTlmBound *bound(const TlmPlanDecision *plan, uint64_t bound_ms)
{
    MigrationTlmBound *b;

    if (!bound_ms) {
        return NULL;
    }
    b = g_new0(MigrationTlmBound, 1);
    b->time = bound_ms;
    b->reachable = plan->bound_reachable;
    return b;
}

static MigrationTlmRam *ram(const TlmMigration *m, const TlmEngineCounters *c)
{
    MigrationTlmRam *r = g_new0(MigrationTlmRam, 1);

    r->mtx = tlm_bytes(m, c->mtx);
    r->dtx = tlm_bytes(m, c->dtx);
    r->stop = tlm_bytes(m, c->rest);
    r->resent = tlm_bytes(m, resent_pages(c));
    r->skipped = tlm_bytes(m, c->forgotten);
    r->passed = tlm_bytes(m, c->passed);
    r->unsent = tlm_bytes(m, m->shown_counts.clean_unsent);
    r->dirty = tlm_bytes(m, m->shown_counts.dirty);
    r->hot = tlm_bytes(m, m->shown_counts.hot);
    return r;
}

static MigrationTlmGuest *guest(const TlmMigration *m, const MigrationState *s,
                                int64_t now_ns)
{
    MigrationTlmGuest *g = g_new0(MigrationTlmGuest, 1);

    g->speed = m->shown_speed;
    g->dirty_rate = m->plan.dirty_rate;
    g->lost_work = lost_ns(m, s, now_ns) / SCALE_MS;
    return g;
}

static MigrationTlmEpochs *epochs(const TlmMigration *m,
                                  const TlmEngineCounters *c)
{
    MigrationTlmEpochs *e = g_new0(MigrationTlmEpochs, 1);

    e->count = c->epochs;
    e->sync_time = m->shown_sync_ns / SCALE_US;
    return e;
}

static uint64_t live_ms(const TlmMigration *m, int64_t now_ns)
{
    int64_t end_ns = m->mark_ns[TLM_MARK_STOPPING] ?: now_ns;

    if (!m->mark_ns[TLM_MARK_LIVE]) {
        return 0;
    }
    return (end_ns - m->mark_ns[TLM_MARK_LIVE]) / SCALE_MS;
}

MigrationTlmInfo *tlm_info(TlmMigration *m)
{
    MigrationState *s = migrate_get_current();
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
    t->decision = tlm_decision(m->plan.reason);
    t->live_time = live_ms(m, now_ns);
    t->bandwidth = m->plan.bandwidth;
    t->prediction = prediction(&m->plan);
    t->bound = bound(&m->plan, s->parameters.tlm_time_bound);
    t->ram = ram(m, &c);
    t->guest = guest(m, s, now_ns);
    t->epochs = epochs(m, &c);
    t->overcommit = tlm_placement_info();
    t->postcopy = tlm_postcopy_info(m, now_ns);
    /* The status is "completed" a moment before we are told */
    if (m->mark_ns[TLM_MARK_END] ||
        s->state == MIGRATION_STATUS_COMPLETED) {
        show_end(m, s, t);
    } else {
        show_underway(m, s, &c, t, now_ns);
    }
    if (m->mark_ns[TLM_MARK_RESUMED]) {
        if (!t->downtime) {
            t->downtime = downtime(m, s);
        }
        t->checkpoint = g_new0(MigrationTlmCheckpoint, 1);
        t->checkpoint->method = m->method;
        t->checkpoint->copied = m->copied_bytes;
        t->checkpoint->faults = m->faults;
        t->checkpoint->copy_rate = m->copy_rate;
        t->checkpoint->has_copy_rate = m->copy_rate > 0;
        t->checkpoint->has_disks_switched = m->disks_asked;
        t->checkpoint->disks_switched = m->disks_switched;
        t->checkpoint->note = m->note[0] ? g_strdup(m->note) : NULL;
        tlm_chain_info(t->checkpoint,
                       s->state == MIGRATION_STATUS_COMPLETED);
    }
    /* What has just reached the kernel has not arrived: no step back */
    t->progress = m->shown_progress = MAX(t->progress, m->shown_progress);
    return t;
}
