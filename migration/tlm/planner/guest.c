/*
 * TLM planner: what the guest makes dirty
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "guest.h"

/*
 * s that averages look back.  Bytes owed again decide on the last epochs, so
 * their average looks back over three.  The yield must survive one bad epoch.
 * Where the guest writes cannot be known faster than a page ages (0.5 to 1 s).
 */
#define REDIRTY_TAU     0.3
#define YIELD_TAU       0.5
#define LOCALITY_TAU    1.0
#define BIAS_TAU        1.0

/*
 * Pages hit fewer times than this within the window are an evenly written
 * working set.  With more hits, nine pages in ten of the set are hit, and the
 * number of the others is noise: then it is a hot set.
 */
#define HOT_HITS        2.5

/*
 * The highest dirty rate fades by so much an epoch, to half in 34.  If it faded
 * faster, the first pulse would be too long after a quiet second.  If it faded
 * more slowly, a burst at the start would count against the guest.
 */
#define RATE_MOST_KEEP  0.98
/* s; epochs that are shorter say nothing of where the guest writes */
#define LOCALITY_EPOCH_MIN (EPOCH_FLOOR / 2)
/*
 * The window must be so many times as long as the epoch: rates are divided by
 * the difference, which may be nothing (nonsense).
 */
#define WINDOW_EPOCHS   1.5
/* Hits an epoch: 1 - exp(-20) is 1 to eight digits, so more are the same */
#define HITS_MAX        20
/* Halvings: the hits are found to a millionth of a millionth */
#define HITS_STEPS      40
/* A page is missed with this chance at least: keeps the logarithm finite */
#define MISS_MIN        0.01
/* Writes beside the hot set go to one part in so many of RAM, at least */
#define COLD_RAM_PART   100

/*
 * Measured against forecast: a factor of more than five either way is a
 * burst or a lull, and not an error of the model that lasts.
 */
#define BIAS_MIN        0.2
#define BIAS_MAX        5
/* Not learned from hits on less than one part in so many of RAM: noise */
#define BIAS_HITS_PART  1000
/* nor with less than one part in so many of RAM clean: hits go elsewhere */
#define BIAS_CLEAN_PART 20

/*
 * While mtx works, the part of the link that may go into pages that become
 * dirty again, and how much of it at once, in seconds.  Without a limit dtx
 * used half of the link for a working set of 1 TiB, and the pass took twice as
 * long.  With three times either, a guest under a cap of 20 MiB/s is stopped
 * early (tlm-sim --selftest); with none dtx would rest in every pass.
 */
#define WASTE_SHARE     0.05
#define WASTE_CREDIT    0.3

/*
 * The worst yield of so many epochs counts: a guest that writes in bursts has
 * a good epoch between two bad ones.
 */
#define YIELDS          3
/* One epoch counts as so many lost at most, so that the average recovers */
#define YIELD_WORST     (-20)

struct TlmGuest {
    TlmGuestView known;
    double owed;                /* unsent + dirty at the last sample */
    double epoch_set;           /* bytes written to in an epoch */
    bool locality_known;
    double yields[YIELDS];
};

TlmGuest *tlm_guest_new(void)
{
    TlmGuest *g = g_new0(TlmGuest, 1);

    g->known.bias = 1;
    g->known.credit = WASTE_CREDIT;
    tlm_guest_forget_waste(g);
    return g;
}

void tlm_guest_free(TlmGuest *g)
{
    g_free(g);
}

void tlm_guest_forget_waste(TlmGuest *g)
{
    g->known.wasted = 0;
    g->known.yield = g->known.yield_least = 1;
    g->yields[0] = g->yields[1] = g->yields[2] = 1;
}

void tlm_guest_suppose(TlmGuest *g, double dirty_rate, double hot_set,
                       double cold_rate)
{
    g->known.dirty_rate = g->known.dirty_rate_most = dirty_rate;
    g->known.hot_set = hot_set;
    g->known.redirty = g->known.cold_rate = cold_rate;
}

void tlm_guest_expect(TlmGuest *g, double redirty)
{
    g->known.redirty = redirty;
}

void tlm_guest_view(const TlmGuest *g, TlmGuestView *v)
{
    *v = g->known;
}

double tlm_guest_hit_rate(const TlmGuestView *v, double total, double clean,
                          double unsent, double dirty)
{
    double all = clean + unsent;

    if (all <= 0) {
        return 0;
    }
    if (v->work_hits > 0) {
        return v->work_hits * MIN(ratio(MAX(v->work_set - dirty, 0), all), 1);
    }
    return v->cold_rate / MAX(total - v->hot_set, total / COLD_RAM_PART + 1);
}

/*
 * How often is a page of an evenly written set hit, per second, if @most
 * of it is hit within @window and @some within @epoch?  The solution of
 * (1 - exp(-h * epoch)) / (1 - exp(-h * window)) = some / most.
 */
static double solve_hits(double some, double epoch, double most,
                         double window)
{
    double low = 0, high = HITS_MAX / epoch;
    unsigned i;

    for (i = 0; i < HITS_STEPS; i++) {
        double h = (low + high) / 2;

        if ((1 - exp(-h * epoch)) * most < some * (1 - exp(-h * window))) {
            low = h;
        } else {
            high = h;
        }
    }
    return low;
}

/* Is it an evenly written working set?  Then how large, how often hit? */
static void learn_work_set(TlmGuest *g, const TlmPlanNow *n, double window)
{
    TlmGuestView *k = &g->known;
    double hits = solve_hits(g->epoch_set, n->epoch,
                             k->hot_set + k->cold_rate * window, window);

    k->work_hits = 0;
    if (hits * window < HOT_HITS) {
        k->work_set = ratio(g->epoch_set, 1 - exp(-hits * n->epoch));
        k->work_set = sane(k->work_set, n->dirty, n->total);
        k->work_hits = -log(MAX(1 - ratio(g->epoch_set, k->work_set),
                                MISS_MIN)) / n->epoch;
    }
}

/* By how much is the forecast of pages owed again wrong? */
static void learn_bias(TlmGuest *g, const TlmPlanNow *n)
{
    TlmGuestView *k = &g->known;
    double was_clean = MAX(n->total - n->unsent - n->dirty, 0) + k->again;
    double expected = was_clean *
        tlm_guest_hit_rate(k, n->total, was_clean, n->unsent,
                           n->dirty - k->again) * n->dt;

    if (expected > n->total / BIAS_HITS_PART &&
        was_clean > n->total / BIAS_CLEAN_PART) {
        smooth(&k->bias, sane(k->again / expected, BIAS_MIN, BIAS_MAX), n->dt,
               BIAS_TAU);
    }
}

/*
 * Compare the pages written in the last epoch with those written in a longer
 * time.  If these are little more, there is a hot set, written again and again,
 * and cold pages beside it.  If they are more in proportion to the time, writes
 * are spread evenly, and the ratio says over how much RAM.
 */
static void learn_locality(TlmGuest *g, const TlmPlanNow *n)
{
    TlmGuestView *k = &g->known;
    bool first = !g->locality_known;
    double rate = MIN(n->fresh / n->epoch / n->speed, FOREVER);
    double window = MIN(n->window, n->clock);
    double tau = first ? 0 : LOCALITY_TAU;
    double cold;

    g->locality_known = true;
    smooth(&k->dirty_rate, rate, n->epoch, tau);
    k->dirty_rate_most = MAX(k->dirty_rate_most * RATE_MOST_KEEP, rate);

    if (first || window < n->epoch * WINDOW_EPOCHS || n->fresh <= 0) {
        /* not to be told yet: half is hot */
        k->cold_rate = n->fresh / 2 / n->epoch;
        k->hot_set = n->fresh / 2;
        k->work_hits = 0;
        k->located = false;
        return;
    }
    tau = k->located ? tau : 0;
    k->located = true;
    cold = sane((n->hot - n->fresh) / (window - n->epoch), 0, rate);
    smooth(&k->cold_rate, cold, n->epoch, tau);
    smooth(&k->hot_set, n->fresh - cold * n->epoch, n->epoch, tau);
    smooth(&g->epoch_set, n->fresh, n->epoch, tau);
    learn_work_set(g, n, window);
    learn_bias(g, n);
}

/* Which part of the link's time was idle, or went into pages owed again? */
static void learn_yield(TlmGuest *g, const TlmPlanNow *n,
                        const TlmLinkView *link)
{
    TlmGuestView *k = &g->known;
    double wasted = k->again * link->wire_per_byte / link->measured;
    double idle = n->dt - n->active;
    double yield = sane(1 - (wasted + idle) / n->dt, YIELD_WORST, 1);

    k->wasted += wasted;
    g->yields[n->step % YIELDS] = yield;
    smooth(&k->yield, yield, n->dt, YIELD_TAU);
    k->yield_least = MIN(g->yields[0], MIN(g->yields[1], g->yields[2]));
    k->credit = MIN(k->credit + n->active * WASTE_SHARE - wasted,
                    WASTE_CREDIT);
}

void tlm_guest_learn(TlmGuest *g, const TlmPlanNow *n, const TlmLinkView *link,
                     bool slowed)
{
    double owed = n->unsent + n->dirty;

    g->known.again = MAX(owed - (n->step ? g->owed : n->total) + n->covered,
                         0);
    g->owed = owed;
    if (n->epoch < EPOCH_TELLS) {
        return;
    }
    smooth(&g->known.redirty, g->known.again / n->dt, n->dt,
           n->step ? REDIRTY_TAU : 0);
    if (!slowed && n->speed > 0 && n->epoch >= LOCALITY_EPOCH_MIN) {
        learn_locality(g, n);
    }
    if (link->measured > 0) {
        learn_yield(g, n, link);
    }
}
