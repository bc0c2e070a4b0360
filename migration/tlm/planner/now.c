/*
 * TLM planner: takes in one sample and the user's parameters
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "now.h"

/*
 * s; a longer epoch or sync is an error of a clock.  The planner asks for ten
 * seconds at most (EPOCH_CEILING), and the slowest known sync takes seconds.
 * An hour is beyond both and keeps sums finite.
 */
#define EPOCH_SANE      3600
/* s; the same for one sync in the average, which lasts for the whole stop */
#define SYNC_SANE       60

/*
 * If zero pages are not counted, and there are fewer wire bytes than this part
 * of the guest bytes, the rest were zero pages.  If there are more, headers and
 * compression may explain the difference.
 */
#define ZERO_WIRE_SHARE 0.5

/*
 * If the threads were idle for a smaller part than one in so many, the channels
 * were writing bytes queued before, and the link was busy.  If for more, dtx
 * or mtx had nothing to send.
 */
#define QUEUE_DRAIN_PART 6

/*
 * A speed below this is 0: measuring a paused guest may give a tenth of the
 * slowest pulse.  Rates at full speed are divided by the speed.
 */
#define SPEED_NONE      (SPEED_MIN / 10)

/*
 * A clock that is ahead by more than this many epochs and a second has
 * jumped.  A busy host delays the coordinator by one or two.
 */
#define JUMP_EPOCHS     3
#define JUMP_S          1

/* A longer time need not be counted; below FOREVER */
#define CLOCK_MAX       (FOREVER / 4)

/* Syncs cost much the same: so many samples weigh as much as the newest */
#define SYNC_SAMPLES    2
/* s that the average share of syncs looks back, as that of the bandwidth */
#define DUTY_TAU        1
/* Syncs longer than this part of the time are an outlier, not the rule */
#define DUTY_MIN        0.2

struct TlmPlanClock {
    unsigned steps;
    int64_t last_now_ns;
    double clock, sync, duty;   /* as in TlmPlanNow */
    bool zero_counted;          /* the coordinator counts zero pages */
};

TlmPlanClock *tlm_clock_new(void)
{
    TlmPlanClock *c = g_new0(TlmPlanClock, 1);

    c->duty = 1;
    return c;
}

void tlm_clock_free(TlmPlanClock *c)
{
    g_free(c);
}

void tlm_now_at_start(const TlmPlanParams *params, TlmPlanNow *n)
{
    *n = (TlmPlanNow) { .duty = 1, .window = HOT_WINDOW };
    n->bound_ms = params->time_bound_ms;
    n->bound = params->time_bound_ms / MS_PER_S;
    n->limit = params->downtime_limit_ms / MS_PER_S;
    n->cap = params->max_bandwidth;
    n->told = params->switchover_bandwidth;
    n->postcopy_cap = params->postcopy_bandwidth;
    n->fixed_epoch = params->epoch_ms / MS_PER_S;
    n->converge = params->converge == TLM_PLAN_CONVERGE_AUTO;
    n->postcopy = params->converge == TLM_PLAN_CONVERGE_POSTCOPY;
    n->cancel = params->bound_action == TLM_PLAN_BOUND_CANCEL;
    n->postcopy_bound = params->bound_action == TLM_PLAN_BOUND_POSTCOPY;
    n->hold = params->hold;
    n->keep = params->keep_bytes;
}

void tlm_now_suppose(TlmPlanNow *n, double total, double hot, double device)
{
    n->total = total;
    n->hot = n->dirty = MIN(hot, total);
    n->unsent = total - n->dirty;
    n->device = device;
}

static void take_bytes(TlmPlanClock *c, const TlmPlanSample *s, TlmPlanNow *n)
{
    n->total = s->total_bytes;
    n->unsent = MIN(s->unsent_bytes, s->total_bytes);
    n->dirty = MIN(s->dirty_bytes, s->total_bytes);
    n->hot = MIN(s->hot_bytes, n->dirty);
    n->fresh = MIN(s->dirtied_bytes, s->total_bytes);
    if (s->hot_ns > 0) {
        n->window = s->hot_ns / NS_PER_S;
    }
    n->skipped = MIN(s->skipped_bytes, s->total_bytes);
    n->device = (double)s->device_bytes + s->queued_bytes;
    n->sent = s->sent_bytes;
    n->covered = s->sent_pages_bytes;
    n->zero = MIN(s->zero_bytes, s->sent_pages_bytes);
    c->zero_counted |= s->zero_bytes > 0;
    if (!c->zero_counted && !s->mtx_done &&
        n->sent < n->covered * ZERO_WIRE_SHARE) {
        /* not counted: zero pages, or compression; zero pages are safer */
        n->zero = n->covered - n->sent;
    }
}

/* How much of the epoch the link had work for; returns s that the sync took */
static double take_times(const TlmPlanSample *s, TlmPlanNow *n)
{
    double sync = sane(s->sync_ns / NS_PER_S, 0, EPOCH_SANE);
    double idle;

    n->epoch = sane(s->epoch_ns / NS_PER_S, 0, EPOCH_SANE);
    idle = sane(s->idle_ns / NS_PER_S, 0, n->epoch);
    n->held = sane(s->held_ns / NS_PER_S, 0, n->epoch);
    n->burst = s->burst_ns > 0 ?
               MIN(s->burst_bytes / (s->burst_ns / NS_PER_S), FOREVER) : 0;
    n->active = n->epoch - idle;
    idle -= sync;
    if (idle > 0 && idle < n->active / QUEUE_DRAIN_PART) {
        n->active += idle;
    }
    return sync;
}

/* Let the clock go on by what has passed since the last sample */
static void advance(TlmPlanClock *c, const TlmPlanSample *s, double step,
                    TlmPlanNow *n)
{
    if (n->step ? s->now_ns >= c->last_now_ns : s->now_ns >= 0) {
        double since = ((double)s->now_ns - (double)c->last_now_ns) /
                       NS_PER_S;

        c->clock += since;
        /* a jump is no time in which bytes could have been sent */
        n->dt = since > step * JUMP_EPOCHS + JUMP_S ? step
                                                    : MAX(since, n->epoch);
    } else {
        c->clock += step;
        n->dt = step;
    }
    c->clock = MIN(c->clock, CLOCK_MAX);
    c->last_now_ns = s->now_ns;
}

void tlm_clock_take_in(TlmPlanClock *c, const TlmPlanParams *params,
                       const TlmPlanSample *s, TlmPlanNow *n)
{
    double sync;

    tlm_now_at_start(params, n);
    n->asked = s->switchover_requested;
    n->mtx_done = s->mtx_done;
    n->can_stop = s->can_switchover;
    n->step = c->steps++;
    take_bytes(c, s, n);
    n->speed = s->guest_speed == s->guest_speed ?
               sane(s->guest_speed, 0, 1) : 1;
    if (n->speed < SPEED_NONE) {
        n->speed = 0;
    }
    sync = take_times(s, n);
    advance(c, s, n->epoch + sync, n);

    smooth(&c->sync, sane(s->sync_ns / NS_PER_S, 0, SYNC_SANE), 1,
           n->step ? SYNC_SAMPLES : 0);
    if (n->epoch > 0) {
        smooth(&c->duty, sane(1 - sync / MAX(n->dt, n->epoch), DUTY_MIN, 1),
               n->dt, n->step > 1 ? DUTY_TAU : 0);
    }
    n->clock = c->clock;
    n->sync = c->sync;
    n->duty = c->duty;
}
