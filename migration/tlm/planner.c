/*
 * TLM planner: when to stop the guest, how much to slow it, what to predict
 *
 * How it decides and why: docs/planner.md.
 *
 * Units in here: seconds and bytes, as double.  "Guest bytes" are RAM;
 * "wire bytes" are what they become on the link.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "planner.h"

#define NS_PER_S 1e9
#define MS_PER_S 1e3

/* Epoch length */
#define EPOCH_MIN       0.1     /* adaptive, before the end is near */
#define EPOCH_MAX       1.0
#define EPOCH_MAX_SYNC  5.0     /* where a sync takes that long */
#define EPOCH_FLOOR     0.02    /* never shorter */
#define EPOCH_CEILING   10.0    /* never longer, whatever is asked for */
#define EPOCH_TELLS     0.001   /* shorter ones are not measured */
#define EPOCH_SYNCS     10.0    /* an epoch is so many dirty log syncs */
#define EPOCH_PASS      3.0     /* and so many times that while mtx works */

/* Bandwidth */
/* Pages stay hot for so long, unless the coordinator says otherwise */
#define HOT_WINDOW      0.8
/* Hit fewer times than this within it: an evenly written working set */
#define HOT_HITS        2.5

#define BW_TAU          1.0     /* s, how far back the average looks */
#define BW_TRUSTED      3       /* samples until it can be relied on */
#define BW_RECENT_TAU   0.05    /* the same, to see it drop */
#define BW_SHORT_MAX    0.3     /* allowed for a link that is unsteady */
#define BW_DATA_SHARE   0.25    /* less data than this says nothing */
#define BW_BUSY_SHARE   0.2     /* nor does a link that was mostly idle */

/* Stopping costs this much beside a sync and the bytes that are left */
#define STOP_OVERHEAD   0.012
/* Aim below the downtime limit: bandwidth and dirty rate are estimates */
#define DOWNTIME_AIM    0.93

/* Throttled, the guest may dirty this part of what the link carries */
#define THROTTLE_SHARE      0.05
/* Beyond this part a pulse is too long, however short it is */
#define THROTTLE_SHARE_MAX  0.20
#define SPEED_MAX           0.2
#define SPEED_MIN           0.002
/* Less useful than this, and it is better to throttle before mtx is done */
#define YIELD_MIN           0.35
/* Full speed may take so much longer than throttling before it loses */
#define FULL_SPEED_PATIENCE 2.5
/* Epochs without progress, throttled, before the end is forced */
#define STUCK_EPOCHS        20

/* A link that was silent for longer than this may be dead */
#define SILENCE_MIN     0.25

/*
 * While mtx works, the part of the link that may go into pages which are
 * dirtied again; and as much at once, in seconds
 */
#define WASTE_SHARE     0.05
#define WASTE_CREDIT    0.3

/* Differences to the bound that are put down to noise */
#define BOUND_NOISE_SHARE 0.01
#define BOUND_NOISE       0.02
/* A smaller part of the link that goes to waste is not worth a stop */
#define LOSS_MIN          0.05
/* unless it adds up to this part of the bound */
#define LOSS_SHARE_MAX    0.03

#define FORECAST_STEPS  64
#define FOREVER         1e15    /* s; no quantity in here is larger */

struct TlmPlanner {
    unsigned samples;
    int64_t last_now_ns;
    double clock;               /* s; never runs backwards */

    /* the link */
    double bw;                  /* wire bytes/s, smoothed */
    double bw_recent;           /* the same over a shorter time */
    double bw_short;            /* share of bw that epochs lack */
    double bw_weight;           /* s that bw rests on */
    double bw_least;            /* most ever seen in any epoch */
    unsigned bw_samples;
    unsigned bw_off;            /* epochs in a row far off the average */
    double duty;                /* share of the time that epochs make up */
    double silent;              /* s that nothing has been sent */
    double silent_most;         /* s, the longest silence that ended */

    /* what becomes of guest bytes on the wire */
    double wire_per_byte;       /* of pages with data */
    double data_seen;           /* guest bytes that it rests on */
    double passed_bytes, passed_zero; /* sent while mtx walked */
    bool zero_counted;          /* the coordinator counts zero pages */
    double scan_rate;           /* guest bytes/s through zero pages */

    /* what the guest does */
    double owed;                /* unsent + dirty at the last sample */
    double total;
    double sync;                /* s */
    double redirty;             /* bytes/s that become owed again */
    double dirty_rate;          /* bytes/s at full speed */
    double dirty_rate_most;     /* in any epoch */
    double hot_set;             /* written in each epoch */
    double cold_rate;           /* bytes/s written beside it */
    double epoch_set;           /* bytes written to in an epoch */
    bool locality_known, guessed;
    double work_set, work_hits; /* or: evenly, hits/s on each page of it */
    double bias;                /* redirty, measured against forecast */
    double yield;               /* useful share of the link's capacity */
    double yield_least;         /* the worst of the last epochs */
    double yields[3];
    double credit;              /* s of the link that dtx may waste */

    /* decisions that last */
    bool passed;                /* mtx is done */
    double passed_at, patience;
    bool throttled;
    uint64_t throttled_bound_ms; /* the bound that required it; or 0 */
    double speed;
    double pulse;               /* bytes/s owed again, per guest speed */
    double least_left;
    unsigned stuck;
    unsigned unreachable;       /* samples in a row */
    double epoch;               /* s, of the next one */
    double progress;
};

/* What one step works on, in doubles and free of nonsense */
typedef struct Now {
    double epoch;               /* s, its sync may be part of it */
    double active;              /* s of it that the link had work */
    double dt;                  /* s since the last sample */
    double total, unsent, dirty, hot, fresh, device;
    double window;              /* s, hot is what was dirtied within */
    double sent, covered, zero;
    double speed;
    bool capped;
} Now;

/* Where the migration goes at full speed */
typedef struct Forecast {
    double pass;                /* s until mtx is done */
    double left;                /* guest bytes dirty then */
    double hot;                 /* part of it that stays hot */
    double refill;              /* bytes/s becoming owed again then */
} Forecast;

TlmPlanner *tlm_planner_new(void)
{
    TlmPlanner *p = g_new0(TlmPlanner, 1);

    p->duty = 1;
    p->wire_per_byte = 1;
    p->speed = 1;
    p->epoch = EPOCH_MIN;
    p->bias = 1;
    p->credit = WASTE_CREDIT;
    p->yield = 1;
    p->yield_least = 1;
    p->yields[0] = p->yields[1] = p->yields[2] = 1;
    return p;
}

void tlm_planner_free(TlmPlanner *p)
{
    g_free(p);
}

static double sane(double x, double low, double high)
{
    if (!(x > low)) {
        return low;             /* NaN as well */
    }
    return x < high ? x : high;
}

/* @a / @b, and FOREVER at most */
static double ratio(double a, double b)
{
    if (a <= 0) {
        return 0;
    }
    if (b <= 0 || a / b > FOREVER) {
        return FOREVER;
    }
    return a / b;
}

static void smooth(double *avg, double x, double dt, double tau)
{
    *avg += (x - *avg) * sane(dt / (dt + tau), 0, 1);
}

static uint64_t to_ms(double s)
{
    return s >= FOREVER ? 0 : sane(s, 0, FOREVER) * MS_PER_S + 0.5;
}

/*
 * The link
 */

/* Wire bytes/s to count on; 0 while nothing is known */
static double live_bandwidth(const TlmPlanner *p, const TlmPlanParams *params)
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
static double stop_bandwidth(const TlmPlanner *p, const TlmPlanParams *params)
{
    if (params->switchover_bandwidth) {
        return params->switchover_bandwidth;
    }
    if (p->bw_samples) {
        /* on the safe side where it has just dropped */
        return MIN(p->bw, p->bw_recent * 1.1);
    }
    return live_bandwidth(p, params);
}

/* Does it rest on more than the cap? */
static bool stop_known(const TlmPlanner *p, const TlmPlanParams *params)
{
    return p->bw_samples || params->switchover_bandwidth;
}

static void learn_bandwidth(TlmPlanner *p, const Now *n)
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

static void learn_silence(TlmPlanner *p, const Now *n)
{
    if (n->sent > 0) {
        p->silent_most = MAX(p->silent_most, p->silent);
        p->silent = 0;
    } else {
        p->silent += n->active;
    }
}

/* Is it unlikely that the link takes anything now? */
static bool link_dead(const TlmPlanner *p)
{
    return p->silent > MAX(SILENCE_MIN, p->silent_most);
}

/*
 * The pages
 */

static void learn_pages(TlmPlanner *p, const Now *n, bool pass)
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
static double unsent_cost(const TlmPlanner *p, double bw)
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
static double stop_time(const TlmPlanner *p, const TlmPlanParams *params,
                        double unsent, double dirty, double device)
{
    double bw = stop_bandwidth(p, params);
    double wire = dirty * p->wire_per_byte + device;

    return MIN(stop_overhead(p) + unsent * unsent_cost(p, bw) +
               ratio(wire, bw), FOREVER);
}

/* Dirtied between the decision and the stop */
static double dirtied_meanwhile(const TlmPlanner *p)
{
    return p->redirty * (STOP_OVERHEAD + p->sync);
}

/* Guest bytes that fit in the downtime limit */
static double fitting(const TlmPlanner *p, const TlmPlanParams *params,
                      double device)
{
    double bw = stop_bandwidth(p, params);
    double time = params->downtime_limit_ms / MS_PER_S * DOWNTIME_AIM;

    time -= stop_overhead(p);
    bw *= 1 - MIN(p->bw_short, BW_SHORT_MAX);
    return MAX(time * bw - device, 0) / p->wire_per_byte;
}

/*
 * The guest
 */

/*
 * New pages per second that become dirty out of @clean and @unsent ones,
 * per byte of them.
 */
static double hit_rate(const TlmPlanner *p, double clean, double unsent,
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
static void learn_locality(TlmPlanner *p, const Now *n, double again)
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
        hit_rate(p, was_clean, n->unsent, n->dirty - again) * n->dt;
    if (expected > n->total / 1000 && was_clean > n->total / 20) {
        smooth(&p->bias, sane(again / expected, 0.2, 5), n->dt, 1.0);
    }
}

static void learn_guest(TlmPlanner *p, const Now *n, bool first)
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
        double wasted = again * p->wire_per_byte / p->bw;
        double idle = n->dt - n->active;

        yield = sane(1 - (wasted + idle) / n->dt, -20, 1);
        p->yields[p->samples % 3] = yield;
        smooth(&p->yield, yield, n->dt, 0.5);
        p->yield_least = MIN(p->yields[0], MIN(p->yields[1], p->yields[2]));
        p->credit = MIN(p->credit + n->active * WASTE_SHARE - wasted,
                        WASTE_CREDIT);
    }
    p->owed = owed;
}

/*
 * Without convergence the pass must not end with pages that could have
 * been sent: is it time for dtx to send the @settled ones?
 */
static bool last_sweep_due(const TlmPlanParams *params, double pass_left,
                           double settled, double speed)
{
    return params->converge == TLM_PLAN_CONVERGE_NONE &&
           pass_left * speed < settled;
}

/*
 * Run the live stage forward at full guest speed: clean and unsent pages
 * are hit at the rate that has been measured, those hit not long ago are
 * held back, dtx has half of the link while it has others.
 */
static void forecast(const TlmPlanner *p, const TlmPlanParams *params,
                     const Now *n, Forecast *f)
{
    double unsent = n->unsent, dirty = n->dirty, hot = n->hot;
    double bw = live_bandwidth(p, params) * p->duty;
    double speed = ratio(bw, p->wire_per_byte);
    double cost = unsent_cost(p, bw);
    double clean = MAX(p->total - unsent - dirty, 0);
    double t = 0, dt, hits;
    unsigned i;

    hot = MIN(hot, dirty);
    if (unsent > 0 && bw <= 0) {
        *f = (Forecast) { FOREVER, dirty, hot, 0 };
        return;
    }
    /* shrink by a constant part: few steps for any size */
    dt = unsent * cost / FORECAST_STEPS;
    for (i = 0; i < FORECAST_STEPS * 4 && unsent > p->total * 0.000001;
         i++) {
        double out, in_unsent, in_clean;

        dt = MAX(dt, 0.001);
        hits = hit_rate(p, clean, unsent, dirty) * p->bias;
        hits = 1 - exp(-hits * dt);
        in_unsent = unsent * hits;
        in_clean = clean * hits;
        unsent -= in_unsent;
        clean -= in_clean;
        dirty += in_unsent + in_clean;
        if (p->work_hits > 0) {
            hot = MAX(MIN(dirty, p->work_set) *
                      (1 - exp(-n->window * p->work_hits)), hot);
            hot = MIN(hot, dirty);
        }
        out = 0;
        if (p->credit > 0 || last_sweep_due(params, unsent * cost, dirty - hot,
                                            speed)) {
            out = MIN(dirty - hot, speed * dt / 2);
        }
        dirty -= out;
        clean += out;
        out = MIN(unsent, ratio(dt - ratio(out, speed), cost));
        unsent -= out;
        clean += out;
        t += dt;
    }
    f->pass = t;
    f->left = dirty + unsent;
    f->hot = hot;
    f->refill = hit_rate(p, clean, unsent, dirty) * p->bias * clean;
}

/* Seconds until @left fits, throttled from now on */
static double throttled_time(const TlmPlanner *p, const TlmPlanParams *params,
                             double unsent, double left, double fit)
{
    double bw = live_bandwidth(p, params) * p->duty;
    double share = THROTTLE_SHARE;

    if (p->throttled && p->speed <= SPEED_MIN) {
        share = ratio(p->pulse * p->speed * p->wire_per_byte, bw);
        share = MIN(share, THROTTLE_SHARE_MAX);
    }

    return ratio((left - MIN(fit, left)) * p->wire_per_byte +
                 unsent * unsent_cost(p, bw) * bw, bw * (1 - share));
}

/*
 * Seconds until @left fits, at full speed; FOREVER if it never will.
 * @hot is the part that dtx holds back.
 */
static double full_speed_time(const TlmPlanner *p,
                              const TlmPlanParams *params, double left,
                              double hot, double refill, double fit,
                              bool *send_hot)
{
    double speed = ratio(live_bandwidth(p, params) * p->duty,
                         p->wire_per_byte);
    double t = FOREVER, t2;

    *send_hot = false;
    if (left <= fit) {
        return 0;
    }
    if (hot <= fit && speed > refill) {
        t = ratio(left - fit, speed - refill);
    }
    /*
     * Pages that are hot only because the last epochs came across them
     * may as well be sent: few of them are written to again at once.
     */
    refill = ratio(p->hot_set, p->epoch) + p->cold_rate;
    if (refill * p->epoch <= fit && refill < speed) {
        t2 = ratio(left - fit, speed - refill);
        if (t2 < t) {
            t = t2;
            *send_hot = true;
        }
    }
    return t;
}

/*
 * A small multiple of what a sync costs; a larger one while mtx works,
 * when nothing waits for the end of an epoch.
 */
static double epoch_length(const TlmPlanner *p, const TlmPlanParams *params,
                           bool pass)
{
    double length;

    if (params->epoch_ms) {
        return sane(params->epoch_ms / MS_PER_S, EPOCH_FLOOR, EPOCH_CEILING);
    }
    length = p->sync * EPOCH_SYNCS;
    if (length > EPOCH_MAX) {
        return MIN(length, EPOCH_MAX_SYNC);
    }
    if (pass && !p->throttled) {
        length = MIN(length * EPOCH_PASS, EPOCH_MAX);
    }
    return MAX(length, EPOCH_MIN);
}

/* Let the next epoch end when what it waits for is expected */
static void shorten_epoch(TlmPlanner *p, double when)
{
    double least = MAX(EPOCH_FLOOR, p->sync * 2);

    if (when < p->epoch) {
        p->epoch = MIN(p->epoch, MAX(when, least));
    }
}

static void throttle(TlmPlanner *p, const TlmPlanParams *params)
{
    double speed = ratio(live_bandwidth(p, params), p->wire_per_byte);

    p->throttled = true;
    p->speed = sane(ratio(THROTTLE_SHARE * speed, p->dirty_rate_most),
                    SPEED_MIN, SPEED_MAX);
    p->stuck = 0;
    p->least_left = FOREVER;
    p->redirty = THROTTLE_SHARE * speed;
    p->pulse = ratio(p->redirty, p->speed);
    p->epoch = epoch_length(p, params, false);
    /* learn soon what a pulse of this length does */
    shorten_epoch(p, EPOCH_MIN);
}

/*
 * The user has changed his mind: the reason why the guest is throttled is
 * gone.  Whether there is another one, the next decision will show.
 */
static void release(TlmPlanner *p, const TlmPlanParams *params)
{
    bool more_time = p->throttled_bound_ms &&
                     (!params->time_bound_ms ||
                      params->time_bound_ms > p->throttled_bound_ms);

    if (p->throttled &&
        (params->converge == TLM_PLAN_CONVERGE_NONE || more_time)) {
        p->throttled = false;
        p->throttled_bound_ms = 0;
        p->speed = 1;
    }
}

/* Follow what the pulses really dirty */
static void adjust_throttle(TlmPlanner *p, const TlmPlanParams *params,
                            const Now *n, double again)
{
    double speed = ratio(live_bandwidth(p, params), p->wire_per_byte);
    double want, pulse;

    if (p->speed <= 0 || n->speed > 0.5 || n->speed <= 0 ||
        n->epoch < EPOCH_TELLS || speed <= 0) {
        return;
    }
    /* up at once, down slowly: pages that are still owed hide the rate */
    pulse = again / n->dt / n->speed;
    smooth(&p->pulse, pulse, n->dt, pulse > p->pulse ? 0 : 1.0);
    want = MIN(ratio(THROTTLE_SHARE * speed, p->pulse), p->speed * 2);
    if (want < SPEED_MIN) {
        want = p->pulse * SPEED_MIN > THROTTLE_SHARE_MAX * speed ? 0
                                                                 : SPEED_MIN;
    }
    p->speed = MIN(want, SPEED_MAX);
}

/* Fill @n from the sample; whatever is wrong in it becomes harmless */
static void take_in(TlmPlanner *p, const TlmPlanSample *s, Now *n)
{
    double step, sync, idle;

    n->total = s->total_bytes;
    n->unsent = MIN(s->unsent_bytes, s->total_bytes);
    n->dirty = MIN(s->dirty_bytes, s->total_bytes);
    n->hot = MIN(s->hot_bytes, n->dirty);
    n->fresh = MIN(s->dirtied_bytes, s->total_bytes);
    n->window = s->hot_ns > 0 ? s->hot_ns / NS_PER_S : HOT_WINDOW;
    n->device = (double)s->device_bytes + s->queued_bytes;
    n->sent = s->sent_bytes;
    n->covered = s->sent_pages_bytes;
    n->zero = MIN(s->zero_bytes, s->sent_pages_bytes);
    p->zero_counted |= s->zero_bytes > 0;
    if (!p->zero_counted && !s->mtx_done && n->sent < n->covered / 2) {
        /* not counted: zero pages, or compression; the former is safer */
        n->zero = n->covered - n->sent;
    }
    n->speed = s->guest_speed == s->guest_speed ?
               sane(s->guest_speed, 0, 1) : 1;
    if (n->speed < SPEED_MIN / 10) {
        n->speed = 0;
    }
    n->epoch = sane(s->epoch_ns / NS_PER_S, 0, 3600);
    sync = sane(s->sync_ns / NS_PER_S, 0, 3600);
    idle = sane(s->idle_ns / NS_PER_S, 0, n->epoch);
    n->active = n->epoch - idle;
    idle -= sync;
    if (idle > 0 && idle < n->active / 6) {
        /* the channels were writing what had been queued before */
        n->active += idle;
    }

    step = n->epoch + sync;
    if (p->samples ? s->now_ns >= p->last_now_ns : s->now_ns >= 0) {
        double since = ((double)s->now_ns - (double)p->last_now_ns) /
                       NS_PER_S;

        p->clock += since;
        /* a jump is no time in which bytes could have been sent */
        n->dt = since > step * 3 + 1 ? step : MAX(since, n->epoch);
    } else {
        p->clock += step;
        n->dt = step;
    }
    p->clock = MIN(p->clock, FOREVER / 4);
    p->last_now_ns = s->now_ns;
    p->total = n->total;

    smooth(&p->sync, sane(s->sync_ns / NS_PER_S, 0, 60), 1,
           p->samples ? 2 : 0);
    if (n->epoch > 0) {
        smooth(&p->duty, sane(1 - sync / MAX(n->dt, n->epoch), 0.2, 1),
               n->dt, p->samples > 1 ? 1 : 0);
    }
    if (!p->samples) {
        p->owed = n->total;
    }
}

/* The live stage after mtx's pass, TLM_PLAN_CONVERGE_AUTO */
static void converge(TlmPlanner *p, const TlmPlanParams *params,
                     const Now *n, double fit, TlmPlanDecision *d)
{
    double speed = ratio(live_bandwidth(p, params) * p->duty,
                         p->wire_per_byte);
    double left = n->dirty + n->unsent;
    double full, slow, refill;
    bool send_hot;

    if (left + dirtied_meanwhile(p) <= fit) {
        d->action = TLM_PLAN_SWITCHOVER;
        d->reason = "what is left fits in the downtime limit";
        return;
    }
    if (p->throttled && left <= dirtied_meanwhile(p)) {
        d->action = TLM_PLAN_SWITCHOVER;
        d->reason = "less is left than becomes dirty while the guest stops";
        return;
    }

    if (p->throttled) {
        /* a tenth of what could be sent in an epoch is progress */
        if (left < p->least_left - speed * n->epoch / 10) {
            p->least_left = left;
            p->stuck = 0;
        } else if (++p->stuck >= STUCK_EPOCHS && p->speed > 0) {
            p->speed = 0;
            p->stuck = 0;
        } else if (p->stuck >= STUCK_EPOCHS && !link_dead(p)) {
            d->action = TLM_PLAN_SWITCHOVER;
            d->reason = "no progress, and the guest cannot be slowed more";
            return;
        }
        d->send_hot = true;
        d->reason = "throttled until what is left fits";
        shorten_epoch(p, ratio(left - fit, speed * (1 - THROTTLE_SHARE)) +
                      EPOCH_FLOOR / 4);
        return;
    }

    slow = throttled_time(p, params, n->unsent, n->dirty, fit);
    if (!p->passed) {
        p->passed = true;
        p->passed_at = p->clock;
        p->patience = FULL_SPEED_PATIENCE * slow + 4 * p->epoch;
    }
    refill = MIN(p->redirty, p->cold_rate);
    full = full_speed_time(p, params, left, n->hot, refill, fit, &send_hot);

    if (full <= FULL_SPEED_PATIENCE * slow + p->epoch &&
        p->clock - p->passed_at <= p->patience) {
        d->send_hot = send_hot;
        d->reason = "what is left shrinks at full guest speed";
        shorten_epoch(p, full + EPOCH_FLOOR / 4);
        return;
    }
    /*
     * It will not fit by itself.  Settled pages cost the same now or
     * later, so let the guest run while they flow.
     */
    if (n->dirty - n->hot > speed * p->epoch / 2 &&
        speed - p->redirty > speed * 0.8 &&
        p->clock - p->passed_at <= p->patience) {
        d->reason = "settled pages first, at full guest speed";
        shorten_epoch(p, ratio(n->dirty - n->hot, speed));
        return;
    }
    throttle(p, params);
    d->send_hot = true;
    d->reason = "what is left does not shrink: throttle";
}

/*
 * While mtx works: should dtx send settled pages?  Over a long pass even
 * they are written to again, so limit what that may cost.
 */
static bool dtx_pays(const TlmPlanner *p, const TlmPlanParams *params,
                     const Now *n, const Forecast *f)
{
    double speed = ratio(live_bandwidth(p, params), p->wire_per_byte);

    return p->throttled || p->credit > 0 ||
           last_sweep_due(params, f->pass, n->dirty - n->hot, speed);
}

/*
 * While mtx works: has it become pointless to let the guest run at full
 * speed, since nearly all that is sent has to be sent again, and the
 * guest has to be throttled in the end anyway?
 */
static bool pass_is_futile(const TlmPlanner *p, const TlmPlanParams *params,
                           const Forecast *f, double fit)
{
    bool send_hot;

    if (p->yield >= YIELD_MIN || f->left <= fit) {
        return false;
    }
    return full_speed_time(p, params, f->left, f->hot, f->refill, fit,
                           &send_hot) >
           FULL_SPEED_PATIENCE * throttled_time(p, params, 0, f->left, fit);
}

/*
 * What converge() leaves of @fit: the last epoch ends when what is left is
 * expected to fit, and a little later.
 */
static double left_at_end(const TlmPlanner *p, const TlmPlanParams *params,
                          double fit)
{
    double speed = ratio(live_bandwidth(p, params) * p->duty,
                         p->wire_per_byte);

    return MAX(fit - speed * EPOCH_FLOOR * 0.75, fit / 2);
}

/* Total time if all goes on as it does now; also the downtime */
static double predict(const TlmPlanner *p, const TlmPlanParams *params,
                      const Now *n, const Forecast *f, double *downtime)
{
    double fit = fitting(p, params, n->device);
    double t = p->clock, left, full, slow;
    bool send_hot;

    if (live_bandwidth(p, params) <= 0) {
        *downtime = FOREVER;
        return FOREVER;
    }
    if (p->throttled) {
        left = n->unsent + n->dirty;
        t += throttled_time(p, params, n->unsent, n->dirty, fit);
        left = left > fit ? left_at_end(p, params, fit) : left;
        *downtime = stop_time(p, params, 0, left, n->device);
        return MIN(t + *downtime, FOREVER);
    }
    t += f->pass;
    left = f->left;
    if (params->converge == TLM_PLAN_CONVERGE_AUTO && left > fit) {
        full = full_speed_time(p, params, left, f->hot, f->refill, fit,
                               &send_hot);
        slow = throttled_time(p, params, 0, left, fit);
        t += full <= FULL_SPEED_PATIENCE * slow + p->epoch ? full : slow;
        left = left_at_end(p, params, fit);
    }
    *downtime = stop_time(p, params, 0, left, n->device);
    return MIN(t + *downtime, FOREVER);
}

/*
 * The bound.  Returns true if it has taken the decision.
 *
 * Stopping now takes until clock + stop.  Each epoch that is spent live
 * moves this end by the part of it that was not useful.
 */
static bool keep_bound(TlmPlanner *p, const TlmPlanParams *params,
                       const Now *n, double stop, bool trusted,
                       TlmPlanDecision *d)
{
    double bound = params->time_bound_ms / MS_PER_S;
    double slack = bound - p->clock - stop;
    double noise = bound * BOUND_NOISE_SHARE + BOUND_NOISE;
    double stop_bw = stop_bandwidth(p, params);
    double gain = stop_bw > 0 ?
        sane(live_bandwidth(p, params) / stop_bw, 0, 1) : 0;
    double loss, drift, allowed, fit, end, waste;
    bool far, sure;

    /*
     * A cap that binds hides what the link would carry in stage 3: a late
     * end cannot become later by stopping now.
     */
    if (params->max_bandwidth && !params->switchover_bandwidth &&
        stop_bw > params->max_bandwidth * 0.85 && slack < 0) {
        gain = MIN(gain, 0.5);
    }
    loss = 1 - MIN(p->yield_least, 1) * gain;

    if (stop >= FOREVER && p->clock < bound) {
        return false;           /* nothing is known yet */
    }
    if (slack < -noise) {
        p->unreachable++;
        d->bound_reachable = !trusted;
        d->smallest_bound_ms = to_ms(p->clock + stop);
        /* once mtx is done there is no time left to make sure */
        far = slack < -noise - bound / (trusted ? 10 : 4);
        sure = trusted ? p->unreachable >= 2
                       : stop_known(p, params) && n->unsent <= 0 && far;
        sure |= p->clock > bound;
        if (params->bound_action == TLM_PLAN_BOUND_CANCEL) {
            if (sure) {
                d->bound_reachable = false;
                d->action = TLM_PLAN_CANCEL;
                d->reason = "the time bound cannot be kept";
                return true;
            }
            if (!trusted) {
                return false;
            }
        }
        if (!sure && p->bw_samples && p->clock + EPOCH_MIN < bound) {
            /* One slow epoch is no reason to stop the guest: look again */
            shorten_epoch(p, EPOCH_MIN);
            return false;
        }
    } else {
        p->unreachable = 0;
    }
    if (!p->bw_samples && p->clock < bound) {
        return false;           /* nothing has been measured */
    }

    /* What is lost in an epoch is little, but there may be many to come */
    drift = trusted && slack < 0 ? stop * loss - slack : 0;
    allowed = params->bound_action == TLM_PLAN_BOUND_CANCEL ?
              noise : bound * LOSS_SHARE_MAX;
    if ((slack < p->epoch * loss + 0.005 && loss > LOSS_MIN) ||
        drift > allowed) {
        /* a shorter epoch may still be worth it */
        if (slack > EPOCH_MIN * loss + 0.005) {
            shorten_epoch(p, (slack - 0.005) / loss);
        } else if (!link_dead(p)) {
            d->action = TLM_PLAN_SWITCHOVER;
            d->reason = slack < -noise ?
                "the time bound is out of reach: overrun least" :
                "the time bound requires it";
            return true;
        }
    }

    if (params->converge != TLM_PLAN_CONVERGE_AUTO || p->throttled ||
        !trusted) {
        return false;
    }
    /* the last moment to throttle and keep bound and downtime limit */
    fit = fitting(p, params, n->device);
    end = p->clock + stop_time(p, params, 0, fit, n->device) +
          throttled_time(p, params, n->unsent, n->dirty, fit);
    waste = p->epoch * (1 - MIN(p->yield, 1));
    if (end + noise + 2 * waste > bound && waste > 0.05 * p->epoch &&
        n->unsent + n->dirty > fit) {
        throttle(p, params);
        p->throttled_bound_ms = params->time_bound_ms;
        d->send_hot = true;
        d->reason = "the time bound requires throttling";
        return true;
    }
    return false;
}

static void fill_predictions(TlmPlanner *p, const TlmPlanParams *params,
                             const Now *n, const Forecast *f, double stop,
                             TlmPlanDecision *d)
{
    double bound = params->time_bound_ms / MS_PER_S;
    double limit = params->downtime_limit_ms / MS_PER_S;
    double downtime, total, natural;

    total = natural = predict(p, params, n, f, &downtime);
    if (bound > 0 && total > bound && total < FOREVER) {
        /* the deadline ends the live stage earlier, with more left */
        double least = p->clock + stop;

        total = MAX(bound, least);
        downtime = MAX(downtime, MIN(stop, total - p->clock));
        if (p->yield > 0 && p->yield < 1 && total > least) {
            downtime = MAX(downtime * 0.5,
                           stop - (total - least) * p->yield /
                           (1 - p->yield));
        }
    }
    if (d->action == TLM_PLAN_SWITCHOVER) {
        downtime = stop;
        total = p->clock + stop;
        if (bound > 0 && stop_known(p, params) &&
            total > bound * (1 + BOUND_NOISE_SHARE) + BOUND_NOISE) {
            d->bound_reachable = false;
        }
    }
    d->predicted_total_ms = to_ms(total);
    d->predicted_downtime_ms = to_ms(downtime);
    d->eta_ms = total >= FOREVER ? 0 : to_ms(MAX(total - p->clock, 0));
    d->smallest_bound_ms = to_ms(p->clock + stop);
    if (bound > 0 && total < FOREVER) {
        d->slack_ms = (int64_t)params->time_bound_ms -
                      (int64_t)d->predicted_total_ms;
    }
    d->downtime_reachable = total < FOREVER && downtime <= limit;
    if (params->converge == TLM_PLAN_CONVERGE_AUTO && bound > 0) {
        d->downtime_reachable &= natural * 1.05 + 2 * p->epoch <= bound;
    }

    if (total > 0 && total < FOREVER) {
        p->progress = MAX(p->progress, sane(p->clock / total, 0, 0.999));
    }
}

void tlm_planner_step(TlmPlanner *p, const TlmPlanParams *params,
                      const TlmPlanSample *sample, TlmPlanDecision *decision)
{
    TlmPlanDecision d = {
        .action = TLM_PLAN_CONTINUE,
        .guest_speed = 1,
        .send_settled = true,
        .bound_reachable = true,
        .reason = "mtx has not passed over all RAM yet",
    };
    double owed, again, stop, fit;
    Forecast f;
    bool first = !p->samples, trusted, ended = false, waits = false;
    Now n = { 0 };

    owed = p->owed;
    take_in(p, sample, &n);
    owed = first ? n.total : owed;
    learn_bandwidth(p, &n);
    learn_silence(p, &n);
    learn_pages(p, &n, !sample->mtx_done || !p->passed);
    learn_guest(p, &n, first);
    p->samples++;
    trusted = p->bw_samples >= BW_TRUSTED ||
              (p->bw_samples && params->switchover_bandwidth);
    again = MAX(n.unsent + n.dirty - owed + n.covered, 0);

    release(p, params);
    p->epoch = epoch_length(p, params, !sample->mtx_done);
    if (p->throttled) {
        adjust_throttle(p, params, &n, again);
    }
    forecast(p, params, &n, &f);
    if (!sample->mtx_done) {
        d.send_settled = dtx_pays(p, params, &n, &f);
    }

    fit = fitting(p, params, n.device);
    stop = stop_time(p, params, n.unsent, n.dirty + dirtied_meanwhile(p),
                     n.device);

    if (sample->switchover_requested) {
        d.action = TLM_PLAN_SWITCHOVER;
        d.reason = "asked for";
        ended = true;
    } else if (params->time_bound_ms) {
        ended = keep_bound(p, params, &n, stop, trusted, &d);
    }
    if (!ended && !p->throttled && !sample->mtx_done && trusted &&
        params->converge == TLM_PLAN_CONVERGE_AUTO &&
        pass_is_futile(p, params, &f, fit)) {
        throttle(p, params);
        d.send_hot = true;
        d.reason = "most of what is sent is dirtied again: throttle";
        ended = true;
    }
    if (!ended && p->throttled && !sample->mtx_done) {
        d.send_hot = true;
        d.reason = "throttled, mtx has not passed over all RAM yet";
        ended = true;
    }
    if (!ended && sample->mtx_done) {
        if (params->converge == TLM_PLAN_CONVERGE_NONE) {
            d.action = TLM_PLAN_SWITCHOVER;
            d.reason = "mtx has passed over all RAM";
        } else {
            converge(p, params, &n, fit, &d);
        }
    }

    if (d.action == TLM_PLAN_SWITCHOVER) {
        if (!sample->can_switchover) {
            d.action = TLM_PLAN_CONTINUE;
            d.reason = "the destination is not ready for the switchover";
        } else if (link_dead(p)) {
            d.action = TLM_PLAN_CONTINUE;
            d.reason = "nothing gets through: no switchover into a dead link";
        }
        if (d.action == TLM_PLAN_CONTINUE) {
            d.send_hot = p->throttled;
            waits = true;
            p->stuck = 0;
            p->least_left = FOREVER;
        }
    }

    /* There is no use in slowing a guest that has to wait for others */
    if (p->throttled && d.action != TLM_PLAN_CANCEL && !link_dead(p) &&
        !waits) {
        d.guest_speed = p->speed;
    }
    fill_predictions(p, params, &n, &f, stop, &d);
    d.epoch_ms = MAX(to_ms(p->epoch), 1);
    d.bandwidth = live_bandwidth(p, params);
    d.dirty_rate = p->dirty_rate;
    d.progress = p->progress;
    *decision = d;
}

void tlm_planner_estimate(const TlmPlanParams *params,
                          const TlmPlanEstimate *estimate,
                          TlmPlanDecision *decision)
{
    TlmPlanParams with = *params;
    TlmPlanner *p = tlm_planner_new();
    TlmPlanDecision d = { .guest_speed = 1, .epoch_ms = EPOCH_MIN * MS_PER_S };
    double window = estimate->window_ms / MS_PER_S;
    double ws, rate, stop;
    Forecast f;
    Now n = { 0 };

    if (!with.switchover_bandwidth) {
        with.switchover_bandwidth = estimate->bandwidth;
    }
    p->total = MIN(estimate->populated_bytes, estimate->total_bytes);
    ws = MIN(estimate->working_set_bytes, p->total);
    rate = MAX(estimate->dirty_rate, ratio(ws, window));
    if (window <= 0) {
        rate = estimate->dirty_rate;
    }
    rate = MIN(rate, 1e15);
    /*
     * Written more than once within the window: a hot set.  Written once
     * only: nothing shows where it ends.
     */
    if (rate * window > 1.5 * ws) {
        p->hot_set = ws;
    } else {
        p->cold_rate = rate;
    }
    p->dirty_rate = p->dirty_rate_most = rate;
    p->redirty = p->cold_rate;
    n.total = p->total;
    n.window = HOT_WINDOW;
    n.hot = MIN(p->hot_set + p->cold_rate * n.window, p->total);
    n.dirty = n.hot;
    n.unsent = p->total - n.dirty;
    n.device = estimate->device_bytes;
    stop = stop_time(p, &with, n.unsent, n.dirty, n.device);

    forecast(p, &with, &n, &f);
    fill_predictions(p, &with, &n, &f, stop, &d);
    d.bound_reachable = !with.time_bound_ms ||
        (stop < FOREVER && stop <= with.time_bound_ms / MS_PER_S);
    d.bandwidth = live_bandwidth(p, &with);
    d.dirty_rate = rate;
    d.reason = "estimate";
    *decision = d;
    tlm_planner_free(p);
}
