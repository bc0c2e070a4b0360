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

/* Wire bytes/s to count on; 0 while nothing is known */
double tlm_plan_live_bandwidth(const TlmPlanner *p, const TlmPlanParams *params)
{
    double cap = params->max_bandwidth;
    double bw = p->bw_samples ? p->bw : 0;

    if (!bw) {
        bw = cap ? cap : params->switchover_bandwidth;
        bw = bw ? bw : p->bw_least;
    }
    return cap ? MIN(bw, cap) : bw;
}

/* The cap does not bind in stage 3; what it let through is a lower bound */
double tlm_plan_stop_bandwidth(const TlmPlanner *p, const TlmPlanParams *params)
{
    if (params->switchover_bandwidth) {
        return params->switchover_bandwidth;
    }
    if (p->bw_samples) {
        /* on the safe side where it has just dropped */
        return MIN(p->bw, p->bw_recent * 1.1);
    }
    return tlm_plan_live_bandwidth(p, params);
}

/* Does it rest on more than the cap? */
bool tlm_plan_stop_known(const TlmPlanner *p, const TlmPlanParams *params)
{
    return p->bw_samples || params->switchover_bandwidth;
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
    dt = n->active;
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
        double busy = p->bw_samples ? n->sent / p->bw : 0;
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
double tlm_plan_stop_time(const TlmPlanner *p, const TlmPlanParams *params,
                          double unsent, double dirty, double device)
{
    double bw = tlm_plan_stop_bandwidth(p, params);
    double wire = dirty * p->wire_per_byte + device;

    return MIN(stop_overhead(p) + unsent * tlm_plan_unsent_cost(p, bw) +
               ratio(wire, bw), FOREVER);
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
