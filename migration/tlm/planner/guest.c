/*
 * TLM planner: what the guest makes dirty
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "planner-int.h"

/* Hit fewer times than this within it: an evenly written working set */
#define HOT_HITS        2.5

/*
 * While mtx works, the part of the link that may go into pages which are
 * dirtied again; and as much at once, in seconds
 */
#define WASTE_SHARE     0.05

/* Dirtied between the decision and the stop */
double tlm_plan_dirtied_meanwhile(const TlmPlanner *p)
{
    return p->redirty * (STOP_OVERHEAD + p->sync);
}

/*
 * New pages per second that become dirty out of @clean and @unsent ones,
 * per byte of them.
 */
double tlm_plan_hit_rate(const TlmPlanner *p, double clean, double unsent,
                         double dirty)
{
    double all = clean + unsent;

    if (all <= 0) {
        return 0;
    }
    if (p->work_hits > 0) {
        return p->work_hits * MIN(ratio(MAX(p->work_set - dirty, 0), all), 1);
    }
    return p->cold_rate / MAX(p->total - p->hot_set, p->total / 100 + 1);
}

/*
 * How often is a page of an evenly written set hit, per second, if @most
 * of it is hit within @window and @some within @epoch?  The solution of
 * (1 - exp(-h * epoch)) / (1 - exp(-h * window)) = some / most.
 */
static double solve_hits(double some, double epoch, double most,
                         double window)
{
    double low = 0, high = 20 / epoch;
    unsigned i;

    for (i = 0; i < 40; i++) {
        double h = (low + high) / 2;

        if ((1 - exp(-h * epoch)) * most < some * (1 - exp(-h * window))) {
            low = h;
        } else {
            high = h;
        }
    }
    return low;
}

/*
 * What the last epoch wrote and what was written in a longer time: how
 * much more is the latter?  Little: a hot set, written again and again,
 * and cold pages beside it.  Nearly as much more as the time is longer:
 * evenly spread writes, and the ratio says over how much RAM.
 */
static void learn_locality(TlmPlanner *p, const TlmPlanNow *n, double again)
{
    bool first = !p->locality_known;
    double rate = MIN(n->fresh / n->epoch / n->speed, FOREVER);
    double window = MIN(n->window, p->clock);
    double was_clean = MAX(n->total - n->unsent - n->dirty, 0) + again;
    double tau = first ? 0 : 1.0;
    double cold, hits, expected;

    p->locality_known = true;
    smooth(&p->dirty_rate, rate, n->epoch, tau);
    p->dirty_rate_most = MAX(p->dirty_rate_most * 0.98, rate);

    if (first || window < n->epoch * 1.5 || n->fresh <= 0) {
        /* not to be told yet: half is hot */
        p->cold_rate = n->fresh / 2 / n->epoch;
        p->hot_set = n->fresh / 2;
        p->work_hits = 0;
        p->guessed = true;
        return;
    }
    tau = p->guessed ? 0 : tau;
    p->guessed = false;
    cold = sane((n->hot - n->fresh) / (window - n->epoch), 0, rate);
    smooth(&p->cold_rate, cold, n->epoch, tau);
    smooth(&p->hot_set, n->fresh - cold * n->epoch, n->epoch, tau);
    smooth(&p->epoch_set, n->fresh, n->epoch, tau);

    hits = solve_hits(p->epoch_set, n->epoch,
                      p->hot_set + p->cold_rate * window, window);
    p->work_hits = 0;
    if (hits * window < HOT_HITS) {
        p->work_set = ratio(p->epoch_set, 1 - exp(-hits * n->epoch));
        p->work_set = sane(p->work_set, n->dirty, n->total);
        p->work_hits = -log(MAX(1 - ratio(p->epoch_set, p->work_set), 0.01)) /
                       n->epoch;
    }

    expected = was_clean *
        tlm_plan_hit_rate(p, was_clean, n->unsent, n->dirty - again) * n->dt;
    if (expected > n->total / 1000 && was_clean > n->total / 20) {
        smooth(&p->bias, sane(again / expected, 0.2, 5), n->dt, 1.0);
    }
}

void tlm_plan_learn_guest(TlmPlanner *p, const TlmPlanNow *n, bool first)
{
    double owed = n->unsent + n->dirty;
    double again = MAX(owed - p->owed + n->covered, 0);
    double yield;

    if (n->epoch < EPOCH_TELLS) {
        p->owed = owed;
        return;
    }
    smooth(&p->redirty, again / n->dt, n->dt, first ? 0 : 0.3);

    if (!p->throttled && n->speed > 0 && n->epoch >= EPOCH_FLOOR / 2) {
        learn_locality(p, n, again);
    }

    if (p->bw_samples && p->bw > 0) {
        /* a stall under a cap that binds makes pages no more expensive */
        double bw = p->held ? MAX(p->bw, p->cap) : p->bw;
        double wasted = again * p->wire_per_byte / bw;
        double idle = n->dt - n->active;

        p->wasted += wasted;
        yield = sane(1 - (wasted + idle) / n->dt, -20, 1);
        p->yields[p->samples % 3] = yield;
        smooth(&p->yield, yield, n->dt, 0.5);
        p->yield_least = MIN(p->yields[0], MIN(p->yields[1], p->yields[2]));
        p->credit = MIN(p->credit + n->active * WASTE_SHARE - wasted,
                        WASTE_CREDIT);
    }
    p->owed = owed;
}
