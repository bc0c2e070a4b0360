/*
 * TLM planner: what the link carries, and what pages cost on it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "link.h"

/*
 * s that the average bandwidth looks back.  With less, the noise of a few
 * epochs moves the deadline.  With more, a link that has become slower without
 * a jump is noticed too late.
 */
#define BW_TAU          1.0
/* s; the same, to see it drop: less than an epoch, so that the last counts */
#define BW_RECENT_TAU   0.05
/* If above the recent average by more, it has dropped; 3 % are noise */
#define BW_RECENT_SLACK 1.1
/*
 * An epoch with less data says nothing of the link: zero pages held it up.
 * With three quarters, a crawl of 1 MiB/s is never measured (tlm-sim
 * --selftest).
 */
#define BW_DATA_SHARE   0.25
/* Nor does a link that was mostly idle: its bytes were in buffers */
#define BW_BUSY_SHARE   0.2
/*
 * An epoch so far off the average starts it anew.  Cross traffic does less;
 * the loss of half of the bandwidth must be seen at once (bandwidth-drops).
 */
#define BW_OFF_SHARE    0.25
/* In a row: one slow epoch is no slow link; six are late (bandwidth-drops) */
#define BW_OFF_EPOCHS   2

/*
 * Samples until the bandwidth can be relied on.  The first sees buffers fill
 * up, so the second starts anew.  The third is the first that another one
 * confirms.  With nine, bounds out of reach are overrun by more (tlm-sim
 * --selftest).
 */
#define BW_TRUSTED      3

/*
 * s; a link that was silent for longer may be dead.  Two epochs may pass
 * while the peer is busy.  More is not allowed, as a guest that is stopped
 * into a dead link waits for it.
 */
#define SILENCE_MIN     0.25

/*
 * If the cap held senders back for a smaller part of an epoch, the link was
 * full.  The pacer's rounding holds up a link that is as fast as the cap by
 * less.
 */
#define HELD_SHARE      0.05
/*
 * s that this must last, and two epochs at least: a stall is no reason to
 * forget the bursts (cap-stall).
 */
#define FREE_TIME       1.0

/*
 * Bursts whose median counts: the fewest that outvote two wrong ones.  A busy
 * host slows one after the other; with three the guest is then stopped at
 * once for a link that is only slow for a moment (cap-busy-host).
 */
#define BURSTS          5
/*
 * A burst may only have filled the peer's buffers, so count on so many times
 * the cap at most in the stop stage.  With once, migrations are cancelled that
 * can keep their bound (tlm-sim --selftest).
 */
#define BURST_TRUST     4
/* Aim below it: it is an estimate, and bounds are kept by it */
#define BURST_AIM       0.95
/*
 * A burst lasts milliseconds: a window that has not opened, or a busy host,
 * may hide as much again of what the link carries.  With less, a migration is
 * cancelled that would have kept its bound (cap-known).  With more, one that
 * cannot keep it is cancelled too late (cap/sure).
 */
#define BURST_DOUBT     2

/*
 * While only a cap on the live stage is known of the link, the link is taken
 * to carry so many times as much: a user who sets a cap leaves as much to
 * others.  With once, each cap would stop the guest early.  With six times, a
 * guest is stopped too late if the link carries three times the cap (both:
 * tlm-sim --selftest).
 */
#define CAP_HIDES       2

/*
 * Wire bytes that a byte of a page with data may become.  Headers add 1 %, so
 * more than WIRE_MAX includes bytes that had been queued before.  No
 * compression of real data gives less than WIRE_MIN.
 */
#define WIRE_MIN        0.01
#define WIRE_MAX        1.25
/*
 * Its average looks back over one part in so many of RAM: less is one
 * program's data, and more would not notice that the data have changed.
 */
#define WIRE_DATA_PART  50

/* With a smaller part of zero pages the time went into data (mixed-pages) */
#define SCAN_ZERO_SHARE 0.5
/* Zero pages have taken one part in so many of the time, at least */
#define SCAN_BUSY_PART  10
/* The fastest scan counts, as data hold others up; it fades by a fifth */
#define SCAN_KEEP       0.8

struct TlmLink {
    double bw;                  /* wire bytes/s, smoothed */
    double recent;              /* the same over a shorter time */
    double lacking;             /* share of bw that epochs lack */
    double weight;              /* s that bw rests on, BW_TAU and one more */
    double fastest;             /* the most seen in any epoch */
    unsigned samples;
    unsigned off;               /* epochs in a row far off the average */
    double seen;                /* s of the link that bw has been measured */

    double cap;                 /* bytes/s in the last step; 0: none */
    bool held;                  /* bw is what a cap lets through */
    double free;                /* s since it last held anything back */
    double bursts[BURSTS];      /* so: bytes/s of the last ones, */
    unsigned n_bursts;
    double burst;               /* and their median */
    double carries;             /* bytes/s to count on for it; 0: unknown */

    double silent;              /* s that nothing has been sent */
    double silent_most;         /* s, the longest silence that ended */

    double wire_per_byte;       /* of pages with data */
    double data_seen;           /* guest bytes that it rests on */
    double walked, walked_zero; /* sent while mtx walked */
    double scan_rate;           /* guest bytes/s through zero pages */
};

TlmLink *tlm_link_new(void)
{
    TlmLink *l = g_new0(TlmLink, 1);

    l->wire_per_byte = 1;
    return l;
}

void tlm_link_free(TlmLink *l)
{
    g_free(l);
}

/*
 * Forget what was learned under a cap: it does not hold without the cap, or
 * with a higher one.
 */
static bool cap_raised(TlmLink *l, double cap)
{
    bool raised = l->held && l->cap && (!cap || cap > l->cap);

    if (raised) {
        /* bursts do: they are as good as one sample */
        l->samples = l->carries ? 1 : 0;
        l->bw = l->recent = l->fastest = l->carries;
        l->weight = l->lacking = l->seen = 0;
        l->off = 0;
    }
    l->cap = cap;
    return raised;
}

static int by_rate(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/*
 * The median of the last bursts.  Acknowledgements come in lumps, so one burst
 * in a few seems far faster than the link.  A busy host sends one in a few far
 * more slowly.
 */
static void learn_burst(TlmLink *l, double burst)
{
    double sorted[BURSTS];

    do {
        l->bursts[l->n_bursts % BURSTS] = burst;
    } while (++l->n_bursts < BURSTS);
    memcpy(sorted, l->bursts, sizeof(sorted));
    qsort(sorted, BURSTS, sizeof(sorted[0]), by_rate);
    l->burst = sorted[BURSTS / 2];
    l->carries = MIN(l->burst * BURST_AIM, l->cap * BURST_TRUST);
}

/* Does bw say what the link carries, or what the cap lets through? */
static void learn_what_binds(TlmLink *l, const TlmPlanNow *n)
{
    if (!l->cap || n->held <= n->epoch * HELD_SHARE) {
        l->free += MIN(n->active, FREE_TIME / 2);
        l->held &= l->cap && l->free < FREE_TIME;
        return;
    }
    l->free = 0;
    if (!l->held) {
        l->held = true;
        l->n_bursts = 0;
        l->carries = 0;
        if (l->samples && l->bw > l->cap) {
            /* what has been measured without the cap is worth a burst */
            learn_burst(l, l->bw);
        }
        l->weight = 0;
    }
    if (n->burst > 0) {
        learn_burst(l, n->burst);
    }
}

/* Take @bw, seen for @dt s, into the averages */
static void average(TlmLink *l, double bw, double dt)
{
    if (l->samples > 1 && dt >= EPOCH_FLOOR) {
        smooth(&l->lacking, ratio(MAX(l->bw - bw, 0), l->bw), dt, BW_TAU);
    }
    if (l->samples && fabs(bw - l->bw) > l->bw * BW_OFF_SHARE) {
        l->off++;
    } else {
        l->off = 0;
    }
    if (l->off >= BW_OFF_EPOCHS || l->samples == 1) {
        /*
         * The link has changed.  Or this is the second sample, and the first
         * has seen the buffers on the way fill up.
         */
        l->weight = 0;
        l->off = 0;
    }
    l->weight = MIN(l->weight, BW_TAU);
    smooth(&l->bw, bw, dt, l->weight);
    l->weight += dt;
    /* an epoch of a few ms tells little */
    smooth(&l->recent, bw, dt, l->samples > 1 ? BW_RECENT_TAU : 0);
    l->samples++;
}

static void learn_bandwidth(TlmLink *l, const TlmPlanNow *n)
{
    double bw;

    if (n->active < EPOCH_TELLS) {
        return;
    }
    bw = MIN(n->sent / n->active, FOREVER);
    l->fastest = MAX(l->fastest, bw);

    if (n->sent <= 0 || n->active < n->epoch * BW_BUSY_SHARE ||
        n->covered - n->zero < n->covered * BW_DATA_SHARE) {
        return;
    }
    learn_what_binds(l, n);
    l->seen = MIN(l->seen + n->active, FOREVER);
    average(l, bw, n->active);
}

static void learn_silence(TlmLink *l, const TlmPlanNow *n)
{
    if (n->sent > 0) {
        l->silent_most = MAX(l->silent_most, l->silent);
        l->silent = 0;
    } else {
        l->silent += n->active;
    }
}

static void learn_pages(TlmLink *l, const TlmPlanNow *n, bool in_pass)
{
    double data = n->covered - n->zero;

    if (data > 0 && n->covered * BW_DATA_SHARE < data && n->sent > 0) {
        smooth(&l->wire_per_byte, sane(n->sent / data, WIRE_MIN, WIRE_MAX),
               data, MIN(l->data_seen, n->total / WIRE_DATA_PART));
        l->data_seen += data;
    }
    if (!in_pass) {
        return;
    }
    l->walked += n->covered;
    l->walked_zero += n->zero;
    if (n->zero > n->covered * SCAN_ZERO_SHARE && n->active >= EPOCH_TELLS) {
        double busy = l->samples ? ratio(n->sent, l->bw) : 0;
        double rate = n->zero / MAX(n->active - busy,
                                    n->active / SCAN_BUSY_PART);

        l->scan_rate = MIN(MAX(l->scan_rate * SCAN_KEEP, rate), FOREVER);
    }
}

bool tlm_link_learn(TlmLink *l, const TlmPlanNow *n, bool in_pass)
{
    bool raised = cap_raised(l, n->cap);

    if (!raised) {
        learn_bandwidth(l, n);
    }
    learn_silence(l, n);
    learn_pages(l, n, in_pass);
    return raised;
}

static double live_bandwidth(const TlmLink *l, const TlmPlanNow *n)
{
    double bw = l->samples ? l->bw : 0;

    if (!bw) {
        bw = n->cap ? n->cap : n->told;
        bw = bw ? bw : l->fastest;
    }
    return MIN(n->cap ? MIN(bw, n->cap) : bw, FOREVER);
}

/*
 * The cap does not bind in the stop stage.  What it lets through is the least
 * that the link carries; bursts tell more.
 */
static double safe_bandwidth(const TlmLink *l, const TlmPlanNow *n)
{
    double bw;

    if (n->told) {
        return MIN(n->told, FOREVER);
    }
    if (!l->samples) {
        return live_bandwidth(l, n);
    }
    /* on the safe side where it has just dropped */
    bw = MIN(l->bw, l->recent * BW_RECENT_SLACK);
    return l->held ? MAX(bw, l->carries) : bw;
}

void tlm_link_view(const TlmLink *l, const TlmPlanNow *n, TlmLinkView *v)
{
    bool capped = l->samples && l->held;

    v->live = live_bandwidth(l, n);
    v->safe = v->guess = v->most = safe_bandwidth(l, n);
    if (capped && !n->told) {
        if (l->carries) {
            v->most = MAX(l->burst * BURST_DOUBT, v->safe);
        } else {
            v->guess = v->safe * CAP_HIDES;
            v->most = FOREVER;
        }
    }
    v->measured = 0;
    if (l->samples && l->bw > 0) {
        /* a stall under a cap that binds makes pages no more expensive */
        v->measured = l->held ? MAX(l->bw, l->cap) : l->bw;
    }
    v->unsteady = l->lacking;
    v->seen = l->seen;
    v->sampled = l->samples;
    v->trusted = l->samples >= BW_TRUSTED || (l->samples && n->told);
    v->known = l->samples || n->told;
    v->capped = capped;
    v->dead = l->silent > MAX(SILENCE_MIN, l->silent_most);
    v->wire_per_byte = l->wire_per_byte;
    v->zero_share = l->walked > 0 ? l->walked_zero / l->walked : 0;
    v->scan_rate = l->scan_rate;
}

double tlm_link_unsent_cost(const TlmLinkView *v, double bw)
{
    double data = (1 - v->zero_share) * ratio(v->wire_per_byte, bw);

    if (!v->sampled && v->scan_rate > 0) {
        /* hardly any page but zero pages so far: all went by at this rate */
        return 1 / v->scan_rate;
    }
    return data + (v->scan_rate > 0 ? v->zero_share / v->scan_rate : 0);
}
