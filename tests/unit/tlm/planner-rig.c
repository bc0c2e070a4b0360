/*
 * Migrations for the tests of the planner: a guest and a link in a few
 * numbers, one epoch at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "planner-rig.h"

/* s; what was written to within it is hot */
#define WINDOW 0.8

void rig_init(Rig *r, uint64_t ram, uint64_t link)
{
    memset(r, 0, sizeof(*r));
    r->p = tlm_planner_new();
    r->link = link;
    r->params.downtime_limit_ms = 300;
    r->s.total_bytes = r->s.unsent_bytes = ram;
    r->s.can_switchover = true;
    r->d.epoch_ms = 100;
    r->d.send_settled = true;
}

void rig_free(Rig *r)
{
    tlm_planner_free(r->p);
}

void rig_hot(Rig *r, uint64_t hot)
{
    r->hot = hot;
    r->s.unsent_bytes -= hot;
    r->s.dirty_bytes = r->s.hot_bytes = hot;
}

static void check_sane(const Rig *r)
{
    const TlmPlanDecision *d = &r->d;

    g_assert_cmpfloat(d->guest_speed, >=, 0);
    g_assert_cmpfloat(d->guest_speed, <=, 1);
    g_assert_cmpfloat(d->progress, >=, r->progress);
    g_assert_cmpfloat(d->progress, <=, 1);
    g_assert_cmpfloat(d->bandwidth, >=, 0);
    /* as far as they can be counted in a uint64_t */
    g_assert_cmpfloat(d->bandwidth, <=, 1e15);
    g_assert_cmpfloat(d->dirty_rate, >=, 0);
    g_assert_cmpfloat(d->dirty_rate, <=, 1e15);
    g_assert_cmpuint(d->epoch_ms, >=, 1);
    g_assert_cmpuint(d->epoch_ms, <=, 10000);
    g_assert_nonnull(tlm_plan_reason_str(d->reason));
    g_assert_cmpuint(d->predicted_total_ms, <=, 1000000000000000000ULL);
    g_assert(d->action == TLM_PLAN_CONTINUE ||
             d->action == TLM_PLAN_SWITCHOVER ||
             d->action == TLM_PLAN_POSTCOPY ||
             d->action == TLM_PLAN_CANCEL);
}

/* Feed what @r->s says */
void step(Rig *r)
{
    r->progress = r->d.progress;
    r->started = true;
    tlm_planner_step(r->p, &r->params, &r->s, &r->d);
    check_sane(r);
}

/* Any page may be written to within @time, in s; returns how many bytes are */
static double evenly(const Rig *r, double bytes, double time)
{
    return bytes * (1 - exp(-(double)r->even_rate * time /
                            r->s.total_bytes));
}

static void write_evenly(Rig *r, double time)
{
    uint64_t clean = r->s.total_bytes - r->s.unsent_bytes - r->s.dirty_bytes;
    uint64_t unsent = evenly(r, r->s.unsent_bytes, time);

    r->s.dirty_bytes += unsent + (uint64_t)evenly(r, clean, time);
    r->s.unsent_bytes -= unsent;
    r->s.dirtied_bytes = evenly(r, r->s.total_bytes, time);
    r->s.hot_bytes = MIN(evenly(r, r->s.total_bytes, WINDOW),
                         r->s.dirty_bytes);
}

/* Let an epoch pass as the last decision says, and feed it */
TlmPlanAction epoch(Rig *r)
{
    int64_t ns = r->d.epoch_ms * MS;
    uint64_t full = r->link * r->d.epoch_ms / 1000;
    uint64_t cap = r->params.max_bandwidth * r->d.epoch_ms / 1000;
    uint64_t can = cap ? MIN(full, cap) : full;
    uint64_t settled = r->s.dirty_bytes - r->s.hot_bytes;
    uint64_t sent = 0, covered = 0, zero = 0, n, again;
    double speed = r->started ? r->d.guest_speed : 1;

    n = MIN(settled, can / 2);
    settled -= n;
    sent = covered = n;

    n = MIN(r->s.unsent_bytes, (can - sent) / (1 - MIN(r->zero, 0.999)));
    r->s.unsent_bytes -= n;
    covered += n;
    zero = n * r->zero;
    sent += n - zero;
    r->s.mtx_done = !r->s.unsent_bytes;

    n = MIN(settled, can - sent);
    settled -= n;
    sent += n;
    covered += n;
    if (r->d.send_hot) {
        n = MIN(r->s.hot_bytes, can - sent);
        r->s.hot_bytes -= n;
        sent += n;
        covered += n;
    }
    r->s.idle_ns = ns - (double)ns * sent / MAX(can, 1);
    r->s.held_ns = (double)ns * (full - can) / MAX(full, 1);
    r->s.burst_bytes = r->bursts && can < full ? 2 * MB : 0;
    r->s.burst_ns = r->s.burst_bytes / (r->link / 1e9);

    /* the guest writes; the sync finds it */
    n = r->hot * (speed == 1 ? 1 : MIN(speed * 10 * r->d.epoch_ms / 100, 1));
    r->s.dirtied_bytes = n;
    r->s.hot_bytes = MAX(r->s.hot_bytes, n);
    again = r->cold_rate * speed * r->d.epoch_ms / 1000;
    again = MIN(again, r->s.total_bytes - r->s.unsent_bytes - settled -
                       r->s.hot_bytes);
    r->s.dirtied_bytes += again;
    r->s.dirty_bytes = settled + r->s.hot_bytes + again;
    if (r->even_rate) {
        write_evenly(r, speed * r->d.epoch_ms / 1000);
    }

    r->s.sent_bytes = sent;
    r->s.sent_pages_bytes = covered;
    r->s.zero_bytes = zero;
    r->s.epoch_ns = ns;
    r->s.sync_ns = MS;
    r->s.guest_speed = speed;
    r->s.now_ns += ns + MS;
    step(r);
    return r->d.action;
}

/* Epochs until the decision is not to go on; at most @max */
unsigned run(Rig *r, unsigned max)
{
    unsigned n = 0;

    while (n < max && epoch(r) == TLM_PLAN_CONTINUE) {
        n++;
    }
    return n;
}

double now(const Rig *r)
{
    return (double)r->s.now_ns / S;
}

double end_of_stop(const Rig *r)
{
    return now(r) + (r->s.unsent_bytes + r->s.dirty_bytes) / (double)r->link;
}

void rig_bound(Rig *r, uint64_t bound_ms, TlmPlanBoundAction action)
{
    r->params.time_bound_ms = bound_ms;
    r->params.bound_action = action;
}
