/*
 * TLM planner: what the link carries, and what pages cost on it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "planner-int.h"

#define BW_TAU          1.0     /* s, how far back the average looks */
#define BW_RECENT_TAU   0.05    /* the same, to see it drop */
#define BW_SHORT_MAX    0.3     /* allowed for a link that is unsteady */
#define BW_DATA_SHARE   0.25    /* less data than this says nothing */
#define BW_BUSY_SHARE   0.2     /* nor does a link that was mostly idle */

/* Aim below the downtime limit: bandwidth and dirty rate are estimates */
#define DOWNTIME_AIM    0.93

/* A link that was silent for longer than this may be dead */
#define SILENCE_MIN     0.25

/* s of stage 3 that what was measured before weighs as much as */
#define STOP_PRIOR      0.25

/* Held back by the cap for a smaller part of an epoch: the link was full */
#define HELD_SHARE      0.05
/*
 * s that this must last, and two epochs at least: a stall is no reason to
 * forget the bursts
 */
#define FREE_TIME       1.0
/*
 * What arrives in a burst may only have filled the peer's buffers: in
 * stage 3 count on so many times the cap at most
 */
#define BURST_TRUST     4.0
/* Aim below it: it is an estimate */
#define BURST_AIM       0.95
/*
 * A burst lasts milliseconds: a window that has not opened, or a busy host,
 * may hide as much again of what the link carries
 */
#define BURST_DOUBT     2.0

/* Wire bytes/s to count on; 0 while nothing is known */
double tlm_plan_live_bandwidth(const TlmPlanner *p, const TlmPlanParams *params)
{
    double cap = params->max_bandwidth;
    double bw = p->bw_samples ? p->bw : 0;

    if (!bw) {
        bw = cap ? cap : params->switchover_bandwidth;
        bw = bw ? bw : p->bw_least;
    }
    return MIN(cap ? MIN(bw, cap) : bw, FOREVER);
}

/*
 * The cap does not bind in stage 3.  What it lets through is the least that
 * the link carries; bursts tell more.  This is what can be counted on.
 */
double tlm_plan_stop_bandwidth(const TlmPlanner *p, const TlmPlanParams *params)
{
    if (params->switchover_bandwidth) {
        return MIN(params->switchover_bandwidth, FOREVER);
    }
    if (p->bw_samples) {
        /* on the safe side where it has just dropped */
        double bw = MIN(p->bw, p->bw_recent * 1.1);

        return p->held ? MAX(bw, p->link) : bw;
    }
    return tlm_plan_live_bandwidth(p, params);
}

/* What it probably carries: a guess where the cap is all that is known */
double tlm_plan_stop_bandwidth_guess(const TlmPlanner *p,
                                     const TlmPlanParams *params)
{
    double bw = tlm_plan_stop_bandwidth(p, params);

    if (!params->switchover_bandwidth && p->bw_samples && p->held && !p->link) {
        bw *= CAP_HIDES;
    }
    return bw;
}

/* No one can say that it carries more than this */
double tlm_plan_stop_bandwidth_most(const TlmPlanner *p,
                                    const TlmPlanParams *params)
{
    double bw = tlm_plan_stop_bandwidth(p, params);

    if (params->switchover_bandwidth || !p->bw_samples || !p->held) {
        return bw;
    }
    return p->link ? MAX(p->burst * BURST_DOUBT, bw) : FOREVER;
}

/* Does it rest on more than the cap? */
bool tlm_plan_stop_known(const TlmPlanner *p, const TlmPlanParams *params)
{
    return p->bw_samples || params->switchover_bandwidth;
}

/*
 * What was learned under a cap does not hold without it, or with a higher
 * one.  Returns true if that has just come: the sample is a mixture then.
 */
bool tlm_plan_cap_raised(TlmPlanner *p, const TlmPlanParams *params)
{
    double cap = params->max_bandwidth;
    bool raised = p->held && p->cap && (!cap || cap > p->cap);

    if (raised) {
        /* bursts do: they are as good as one sample */
        p->bw_samples = p->link ? 1 : 0;
        p->bw = p->bw_recent = p->bw_least = p->link;
        p->bw_weight = p->bw_short = p->bw_time = 0;
        p->bw_off = 0;
        p->unreachable = 0;
        p->wasted = 0;
        p->yield = p->yield_least = 1;
        p->yields[0] = p->yields[1] = p->yields[2] = 1;
    }
    p->cap = cap;
    return raised;
}

/*
 * The median: acknowledgements come in lumps, so that one burst in a few
 * seems to have been far faster than the link; and a busy host sends one in
 * a few far more slowly.
 */
static void learn_burst(TlmPlanner *p, double burst)
{
    double low, high;

    do {
        p->bursts[p->n_bursts % 3] = burst;
    } while (++p->n_bursts < 3);
    low = MIN(p->bursts[0], p->bursts[1]);
    high = MAX(p->bursts[0], p->bursts[1]);
    p->burst = MAX(low, MIN(high, p->bursts[2]));
    p->link = MIN(p->burst * BURST_AIM, p->cap * BURST_TRUST);
}

/* Does bw say what the link carries, or what the cap lets through? */
static void learn_link(TlmPlanner *p, const TlmPlanNow *n)
{
    if (!p->cap || n->held <= n->epoch * HELD_SHARE) {
        p->free += MIN(n->active, FREE_TIME / 2);
        p->held &= p->cap && p->free < FREE_TIME;
        return;
    }
    p->free = 0;
    if (!p->held) {
        p->held = true;
        p->n_bursts = 0;
        p->link = 0;
        if (p->bw_samples && p->bw > p->cap) {
            /* what has been measured without the cap is worth a burst */
            learn_burst(p, p->bw);
        }
        p->bw_weight = 0;
    }
    if (n->burst > 0) {
        learn_burst(p, n->burst);
    }
}

void tlm_plan_learn_bandwidth(TlmPlanner *p, const TlmPlanNow *n)
{
    double bw, dt;

    if (n->active < EPOCH_TELLS) {
        return;
    }
    bw = MIN(n->sent / n->active, FOREVER);
    p->bw_least = MAX(p->bw_least, bw);

    if (n->sent <= 0 || n->active < n->epoch * BW_BUSY_SHARE ||
        n->covered - n->zero < n->covered * BW_DATA_SHARE) {
        return;
    }
    learn_link(p, n);
    dt = n->active;
    p->bw_time = MIN(p->bw_time + dt, FOREVER);
    if (p->bw_samples > 1 && dt >= EPOCH_FLOOR) {
        smooth(&p->bw_short, ratio(MAX(p->bw - bw, 0), p->bw), dt, BW_TAU);
    }
    if (p->bw_samples && fabs(bw - p->bw) > p->bw / 4) {
        p->bw_off++;
    } else {
        p->bw_off = 0;
    }
    if (p->bw_off >= 2 || p->bw_samples == 1) {
        /*
         * The link has changed; or this is the second sample: the first
         * has seen the buffers between here and there fill up.
         */
        p->bw_weight = 0;
        p->bw_off = 0;
    }
    p->bw_weight = MIN(p->bw_weight, BW_TAU);
    smooth(&p->bw, bw, dt, p->bw_weight);
    p->bw_weight += dt;
    /* an epoch of a few ms tells little */
    smooth(&p->bw_recent, bw, dt, p->bw_samples > 1 ? BW_RECENT_TAU : 0);
    p->bw_samples++;
}

void tlm_plan_learn_silence(TlmPlanner *p, const TlmPlanNow *n)
{
    if (n->sent > 0) {
        p->silent_most = MAX(p->silent_most, p->silent);
        p->silent = 0;
    } else {
        p->silent += n->active;
    }
}

/* Is it unlikely that the link takes anything now? */
bool tlm_plan_link_dead(const TlmPlanner *p)
{
    return p->silent > MAX(SILENCE_MIN, p->silent_most);
}

void tlm_plan_learn_pages(TlmPlanner *p, const TlmPlanNow *n, bool pass)
{
    double data = n->covered - n->zero;

    if (data > 0 && n->covered * BW_DATA_SHARE < data && n->sent > 0) {
        smooth(&p->wire_per_byte, sane(n->sent / data, 0.01, 1.25), data,
               MIN(p->data_seen, p->total / 50));
        p->data_seen += data;
    }
    if (!pass) {
        return;
    }
    p->passed_bytes += n->covered;
    p->passed_zero += n->zero;
    if (n->zero > n->covered / 2 && n->active >= EPOCH_TELLS) {
        double busy = p->bw_samples ? ratio(n->sent, p->bw) : 0;
        double rate = n->zero / MAX(n->active - busy, n->active / 10);

        p->scan_rate = MIN(MAX(p->scan_rate * 0.8, rate), FOREVER);
    }
}

static double zero_share(const TlmPlanner *p)
{
    return p->passed_bytes > 0 ? p->passed_zero / p->passed_bytes : 0;
}

/* Seconds that mtx needs for a byte of RAM, the link being its own */
double tlm_plan_unsent_cost(const TlmPlanner *p, double bw)
{
    double zero = zero_share(p);
    double cost = (1 - zero) * ratio(p->wire_per_byte, bw);

    if (!p->bw_samples && p->scan_rate > 0) {
        /* next to nothing but zero pages so far: all went by at this rate */
        return 1 / p->scan_rate;
    }
    return cost + (p->scan_rate > 0 ? zero / p->scan_rate : 0);
}

static double stop_overhead(const TlmPlanner *p)
{
    return STOP_OVERHEAD + p->sync;
}

/* Seconds of downtime if the guest stopped with this much owed */
double tlm_plan_stop_time_at(const TlmPlanner *p, double bw, double unsent,
                             double dirty, double device)
{
    double wire = dirty * p->wire_per_byte + device;

    return MIN(stop_overhead(p) + unsent * tlm_plan_unsent_cost(p, bw) +
               ratio(wire, bw), FOREVER);
}

double tlm_plan_stop_time(const TlmPlanner *p, const TlmPlanParams *params,
                          double unsent, double dirty, double device)
{
    return tlm_plan_stop_time_at(p, tlm_plan_stop_bandwidth(p, params),
                                 unsent, dirty, device);
}

/* Guest bytes that fit in the downtime limit */
double tlm_plan_fitting(const TlmPlanner *p, const TlmPlanParams *params,
                        double device)
{
    double bw = tlm_plan_stop_bandwidth(p, params);
    double time = params->downtime_limit_ms / MS_PER_S * DOWNTIME_AIM;

    time -= stop_overhead(p);
    bw *= 1 - MIN(p->bw_short, BW_SHORT_MAX);
    return MAX(time * bw - device, 0) / p->wire_per_byte;
}

uint64_t tlm_planner_stop_eta_ms(double bandwidth, double time,
                                 double arrived, double left)
{
    double rate = bandwidth > 0
        ? (bandwidth * STOP_PRIOR + arrived) / (STOP_PRIOR + MAX(time, 0))
        : ratio(arrived, time);

    return to_ms(ratio(left, rate));
}
