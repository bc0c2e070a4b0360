/*
 * TLM planner: what the time bound calls for
 *
 * A migration that stops the guest now ends at clock + stop.  Each epoch that
 * is spent live moves this end by the part of the epoch that was not useful.
 *
 * A cap that binds hides what the link carries in the stop stage.  A bound
 * that only the cap makes late is not out of reach, and is no reason to stop
 * early.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "bound.h"
#include "epoch-length.h"
#include "forecast.h"

/*
 * Differences to the bound that are taken for noise: a part of it, and s.
 * With none, a bound that is late by a hair would be called out of reach.  With
 * three times the share, a little waste in each epoch adds up to an overrun
 * (cancel-drift).
 */
#define NOISE_SHARE       0.01
#define NOISE             0.02

/*
 * A bound that seems out of reach for this part of the time that is left, or
 * for PATIENCE_MAX s, is given up.  While the bound is far, another look costs
 * next to nothing, and one slow second is no slow link: a third of either
 * gives up after a slow start (tlm-sim --selftest).  With more, a bound that
 * really is out of reach is given up late (bound-unreachable).  A cancel takes
 * PATIENCE_CANCEL s at least, as the guest is not stopped meanwhile.
 */
#define PATIENCE_SHARE    0.1
#define PATIENCE_MAX      5.0
#define PATIENCE_CANCEL   0.5
/* So many samples in a row must say so: one alone may be noise */
#define DOUBT_SAMPLES     2
/*
 * Before the link can be trusted, only an end that is late by this part of the
 * bound is late for sure: the first samples are off by up to so much.
 */
#define FAR_SHARE         0.25

/*
 * If a smaller part of the link goes to waste, a stop is not worth it: staying
 * live costs next to nothing, however tight the bound.
 */
#define LOSS_MIN          0.05
/*
 * Unless the waste adds up to this part of the bound.  tlm-sim allows a bound
 * within reach to be overrun by so much.
 */
#define LOSS_SHARE_MAX    0.03
/* s that the last epoch may end late: a thread finishes its batch */
#define LAST_EPOCH_LATE   0.005
/*
 * With less of an epoch wasted, waiting for the end of the pass costs the
 * bound nothing, and it is too early to throttle for it.
 */
#define WASTE_MIN         0.05

/*
 * The guest is not stopped for the bound before the link has been seen for as
 * long as patience says, if this overruns the bound by at most this part.
 * With a third of it a guest is stopped for a slow start (tlm-sim --selftest).
 */
#define DOUBT_SHARE       0.005
/*
 * If a cap hides what the link carries, a cancel is sure only when the bound
 * has passed.  The guest is stopped if the stop may miss the bound by this part
 * at most.  If by more, it would be stopped in vain.
 */
#define DOUBT_CANCEL      0.1
/*
 * If it is not known how long the stop takes, do not stop in the first half.
 * The cap may be lifted until then, as OpenStack Nova does after seconds.
 * Earlier, the guest is stopped before that.  Later, too little of the bound is
 * left, and it is overrun (both: tlm-sim --selftest).
 */
#define HOPE_SHARE        0.5

/* The end, if the guest stopped now, against the bound; all in s */
typedef struct {
    double noise;
    double left;                /* until the bound */
    double slack;               /* the same, less the stop as guessed */
    double patience;            /* with a bound that seems out of reach */
    double loss;                /* share of an epoch that is not useful */
    bool lost;                  /* whatever the link carries */
} Reckoning;

/* What is believed of the bound */
typedef enum {
    NOTHING_KNOWN,
    WITHIN_REACH,
    DOUBTFUL,                   /* it seems out of reach; that may pass */
    OUT_OF_REACH,               /* believed: it will be missed, by little */
    HOPELESS,                   /* sure: not even the fastest link would do */
} Belief;

double tlm_bound_latest_end(double bound)
{
    return bound * (1 + NOISE_SHARE) + NOISE;
}

void tlm_bound_forget(TlmBoundDoubt *b)
{
    b->samples = 0;
}

static void reckon(const TlmPlanView *v, Reckoning *r)
{
    const TlmPlanNow *n = &v->now;
    double gain = v->link.guess > 0 ?
        sane(v->link.live / v->link.guess, 0, 1) : 0;

    r->noise = n->bound * NOISE_SHARE + NOISE;
    r->left = n->bound - n->clock;
    r->slack = r->left - v->stop.guess;
    r->lost = r->left - v->stop.least < -r->noise;
    r->loss = 1 - MIN(v->guest.yield_least, 1) * gain;
    if (tlm_view_blind(v)) {
        r->slack = MAX(r->slack, r->left - n->bound * HOPE_SHARE);
    }
    r->patience = n->cancel ? MAX(n->bound * PATIENCE_SHARE, PATIENCE_CANCEL)
                            : r->left * PATIENCE_SHARE;
    /* what the user says of the link is not doubted */
    r->patience = n->told ? 0 : MIN(r->patience, PATIENCE_MAX);
}

/* Do enough samples say that it is out of reach, or one very clearly? */
static bool evident(const TlmBoundDoubt *b, const TlmPlanView *v,
                    const Reckoning *r)
{
    if (v->link.trusted) {
        return b->samples >= DOUBT_SAMPLES;
    }
    /* once mtx is done there is no time left to make sure */
    return v->link.known && v->now.unsent <= 0 &&
           r->slack < -r->noise - v->now.bound * FAR_SHARE;
}

/* Would it be missed by so little that patience would lose it? */
static bool nearly_kept(const TlmPlanView *v, const Reckoning *r)
{
    double bound = v->now.bound;

    if (v->now.cancel) {
        return !r->lost && r->slack > -bound * DOUBT_CANCEL;
    }
    return r->slack > -bound * LOSS_SHARE_MAX;
}

/* It seems to be out of reach: how sure is that? */
static Belief doubt(const TlmBoundDoubt *b, const TlmPlanView *v,
                    const Reckoning *r)
{
    const TlmPlanNow *n = &v->now;
    bool told = evident(b, v, r);
    bool nearly = nearly_kept(v, r);
    bool sure = n->clock > n->bound ||
                (told && (nearly ||
                          n->clock - b->since > r->patience - EPOCH_MIN));

    if (n->cancel) {
        if (sure && r->lost) {
            return HOPELESS;
        }
        if (!v->link.trusted && !told) {
            return NOTHING_KNOWN;
        }
        return sure && nearly ? OUT_OF_REACH : DOUBTFUL;
    }
    /* One slow epoch is no reason to stop the guest: look again */
    return sure || !v->link.sampled || n->clock + EPOCH_MIN >= n->bound
           ? OUT_OF_REACH : DOUBTFUL;
}

static Belief believe(TlmBoundDoubt *b, const TlmPlanView *v,
                      const Reckoning *r, bool *reachable)
{
    const TlmPlanNow *n = &v->now;
    Belief belief = WITHIN_REACH;

    if (v->stop.guess >= FOREVER && n->clock < n->bound) {
        return NOTHING_KNOWN;
    }
    if (r->slack < -r->noise && !tlm_view_blind(v)) {
        if (!b->samples++) {
            b->since = n->clock;
        }
        *reachable = r->left >= -r->noise && (!v->link.trusted || !r->lost);
        belief = doubt(b, v, r);
    } else {
        b->samples = 0;
    }
    if (belief != HOPELESS && belief != DOUBTFUL && !v->link.sampled &&
        n->clock < n->bound) {
        return NOTHING_KNOWN;
    }
    return belief;
}

/*
 * Is this the last moment to stop?  An epoch may lose little, but many epochs
 * may be to come.
 */
static bool must_stop(const TlmPlanView *v, const Reckoning *r, double epoch)
{
    double drift = v->link.trusted && r->slack < 0 ?
        v->stop.guess * r->loss - r->slack : 0;
    double allowed = v->now.cancel ? r->noise
                                   : v->now.bound * LOSS_SHARE_MAX;

    return (r->slack < epoch * r->loss + LAST_EPOCH_LATE &&
            r->loss > LOSS_MIN) || drift > allowed;
}

/* Is this the last moment to throttle and keep bound and downtime limit? */
static bool must_throttle(const TlmPlanView *v, const Reckoning *r,
                          double epoch)
{
    const TlmPlanNow *n = &v->now;
    double end = n->clock + tlm_view_stop_time(v, v->fit) +
        tlm_forecast_throttled(v, THROTTLE_SHARE, n->unsent, n->dirty, v->fit);
    double waste = epoch * (1 - MIN(v->guest.yield, 1));

    if (tlm_view_blind(v) && end > n->bound + r->noise) {
        return false;           /* nobody can know if it is of any use */
    }
    return end + r->noise + 2 * waste > n->bound &&
           waste > WASTE_MIN * epoch && n->unsent + n->dirty > v->fit;
}

/* It is, or may be, within reach, or late for sure: stop, throttle or go on */
static TlmBoundCall last_moment(const TlmPlanView *v, const Reckoning *r,
                                bool full_speed, double *epoch)
{
    if (must_stop(v, r, *epoch)) {
        if (r->slack > EPOCH_MIN * r->loss + LAST_EPOCH_LATE) {
            /* a shorter epoch may still be worth it */
            *epoch = tlm_plan_epoch_shorten(&v->now, *epoch,
                                            (r->slack - LAST_EPOCH_LATE) /
                                            r->loss);
        } else if (v->link.seen < r->patience &&
                   r->slack > -v->now.bound * DOUBT_SHARE) {
            *epoch = tlm_plan_epoch_shorten(&v->now, *epoch, EPOCH_MIN);
            return TLM_BOUND_NO_SAY;
        } else if (!v->link.dead) {
            return r->lost && r->slack < -r->noise ? TLM_BOUND_OVERRUN
                                                   : TLM_BOUND_STOP;
        }
    }
    if (full_speed && v->now.converge && v->link.trusted &&
        must_throttle(v, r, *epoch)) {
        return TLM_BOUND_THROTTLE;
    }
    return TLM_BOUND_NO_SAY;
}

/*
 * Is this the last moment for post-copy?  All of RAM must be there when the
 * bound passes.  Post-copy sends no page twice, so its end is known, whatever
 * the guest does.
 */
static bool postcopy_due(const TlmPlanView *v, double *epoch)
{
    double slack = v->now.bound - v->now.clock - v->stop.postcopy;
    double useful = MIN(v->guest.yield_least, 1) * v->link.live;
    double loss = 1 - ratio(useful, tlm_view_postcopy_rate(v));

    if (v->link.dead || v->stop.postcopy >= FOREVER ||
        !(v->link.trusted || v->now.mtx_done || slack < -v->now.bound)) {
        return false;           /* nothing is known yet */
    }
    if (loss <= LOSS_MIN || slack > *epoch * loss + LAST_EPOCH_LATE) {
        return false;
    }
    if (slack > EPOCH_MIN * loss + LAST_EPOCH_LATE) {
        *epoch = tlm_plan_epoch_shorten(&v->now, *epoch,
                                        (slack - LAST_EPOCH_LATE) / loss);
        return false;
    }
    return true;
}

/*
 * All lanes together are quicker than post-copy's single stream: a stop may
 * keep a bound that post-copy cannot.
 */
static TlmBoundCall call_for_postcopy(const TlmPlanView *v, double *epoch,
                                      bool *reachable)
{
    Reckoning r;

    reckon(v, &r);
    if (v->link.trusted) {
        *reachable = r.left - MIN(v->stop.postcopy, v->stop.guess) >= -r.noise;
    }
    if (!postcopy_due(v, epoch)) {
        return TLM_BOUND_NO_SAY;
    }
    if (r.left < v->stop.postcopy - r.noise && r.slack > 0) {
        return must_stop(v, &r, *epoch) ? TLM_BOUND_STOP : TLM_BOUND_NO_SAY;
    }
    return TLM_BOUND_POSTCOPY;
}

TlmBoundCall tlm_bound_call(TlmBoundDoubt *b, const TlmPlanView *v,
                            bool full_speed, double *epoch, bool *reachable)
{
    Reckoning r;

    if (!v->now.bound) {
        return TLM_BOUND_NO_SAY;
    }
    if (v->now.postcopy_bound) {
        return call_for_postcopy(v, epoch, reachable);
    }
    reckon(v, &r);
    if (r.left < -r.noise) {
        /* It has passed: this is sure, whatever the link carries */
        *reachable = false;
        if (v->now.cancel) {
            return TLM_BOUND_PASSED;
        }
    }
    switch (believe(b, v, &r, reachable)) {
    case NOTHING_KNOWN:
        return TLM_BOUND_NO_SAY;
    case DOUBTFUL:
        *epoch = tlm_plan_epoch_shorten(&v->now, *epoch, EPOCH_MIN);
        /* nor is the guest stopped if the stop seems to be of no use */
        return v->now.cancel ? TLM_BOUND_DOUBTED : TLM_BOUND_NO_SAY;
    case HOPELESS:
        *reachable = false;
        return TLM_BOUND_LOST;
    case WITHIN_REACH:
    case OUT_OF_REACH:
        break;
    }
    return last_moment(v, &r, full_speed, epoch);
}
