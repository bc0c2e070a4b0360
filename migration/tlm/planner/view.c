/*
 * TLM planner: how long the stop takes, and what fits in the downtime limit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "view.h"

/*
 * s; the cost of stopping beside a sync and the bytes that are left: the vCPUs,
 * the block layer, the device state.  The simulator has guests that take 5 to
 * 20 ms.  With three times as much, some migrations are cancelled that could
 * have kept their bound.
 */
#define STOP_OVERHEAD   0.012

/*
 * Aim below the downtime limit, as bandwidth and dirty rate are estimates.
 * tlm-sim --selftest lets a limit that is called reachable be broken by a
 * fifth.  A lower aim would slow the guest for longer (small-hot-set).
 */
#define DOWNTIME_AIM    0.93

/*
 * Reserve for an unsteady link: this part of its bandwidth at most.  With more,
 * hardly anything would fit in the limit on a link that stalls.
 */
#define UNSTEADY_MAX    0.3

/*
 * Post-copy sends page after page in one stream, however many channels there
 * are, and the destination puts each into place by a system call.  No more
 * bytes/s than this are counted on.  290e6 were measured on a link of 300e6;
 * what a faster link gets is not known.
 */
#define POSTCOPY_RATE   400e6
/*
 * A zero page is looked at, and its header sent: bytes/s.  4 GiB took 1.3 s;
 * half of that is counted on.
 */
#define POSTCOPY_ZEROS  1.5e9
/*
 * s; from the decision to the first page: the destination loads what is under
 * way, the guest stops, and the device state goes over.
 */
#define POSTCOPY_START  (TLM_PLAN_SETTLE_MS / MS_PER_S + 0.05)
/* Reserve for requests that go before, and for an unsteady link */
#define POSTCOPY_RESERVE 0.05
/*
 * A stop must take this part of the downtime limit at most to be preferred to
 * post-copy.  On a busy host a stop of a small hot set took twice as long as
 * foreseen, which post-copy does not.
 */
#define STOP_PREFERRED  0.6

static double stop_overhead(const TlmPlanView *v)
{
    return STOP_OVERHEAD + v->now.sync;
}

static double stop_time_at(const TlmPlanView *v, double bw, double unsent,
                           double dirty)
{
    double wire = dirty * v->link.wire_per_byte + v->now.device;

    return MIN(stop_overhead(v) +
               unsent * tlm_link_unsent_cost(&v->link, bw) + ratio(wire, bw),
               FOREVER);
}

double tlm_view_stop_time(const TlmPlanView *v, double dirty)
{
    return stop_time_at(v, v->link.safe, 0, dirty);
}

double tlm_view_postcopy_rate(const TlmPlanView *v)
{
    double bw = MIN(v->link.safe, POSTCOPY_RATE);

    if (v->now.postcopy_cap > 0) {
        bw = MIN(bw, v->now.postcopy_cap);
    }
    return bw * (1 - POSTCOPY_RESERVE);
}

double tlm_view_postcopy_time(const TlmPlanView *v, double unsent,
                              double dirty)
{
    /* Post-copy does not compress */
    double wire = dirty + unsent * (1 - v->link.zero_share);

    return MIN(POSTCOPY_START + stop_overhead(v) +
               ratio(wire + v->now.device, tlm_view_postcopy_rate(v)) +
               (v->now.skipped + unsent * v->link.zero_share) /
               POSTCOPY_ZEROS, FOREVER);
}

bool tlm_view_fits(const TlmPlanView *v, double dirty)
{
    return dirty <= v->fit * STOP_PREFERRED;
}

void tlm_view_stop(TlmPlanView *v, double dirty)
{
    v->stop.postcopy = tlm_view_postcopy_time(v, v->now.unsent, dirty);
    v->stop.safe = stop_time_at(v, v->link.safe, v->now.unsent, dirty);
    v->stop.guess = stop_time_at(v, v->link.guess, v->now.unsent, dirty);
    v->stop.least = stop_time_at(v, v->link.most, v->now.unsent, dirty);
}

static double fitting(const TlmPlanView *v)
{
    double bw = v->link.safe;
    double time = v->now.limit * DOWNTIME_AIM;

    time -= stop_overhead(v);
    bw *= 1 - MIN(v->link.unsteady, UNSTEADY_MAX);
    return MAX(time * bw - v->now.device, 0) / v->link.wire_per_byte;
}

void tlm_view_complete(TlmPlanView *v)
{
    v->epoch_rate = ratio(v->link.live, v->link.wire_per_byte);
    v->mean_bandwidth = v->link.live * v->now.duty;
    v->mean_rate = ratio(v->mean_bandwidth, v->link.wire_per_byte);
    v->meanwhile = v->guest.redirty * stop_overhead(v);
    v->fit = fitting(v);
}
