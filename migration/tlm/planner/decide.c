/*
 * TLM planner: when to slow the guest, to stop it, to give up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "planner-int.h"

#define EPOCH_MAX       1.0
#define EPOCH_MAX_SYNC  5.0     /* where a sync takes that long */
#define EPOCH_CEILING   10.0    /* never longer, whatever is asked for */
#define EPOCH_SYNCS     10.0    /* an epoch is so many dirty log syncs */
#define EPOCH_PASS      3.0     /* and so many times that while mtx works */

#define SPEED_MAX           0.2
/*
 * Less useful than this, and it may be better to throttle before mtx is
 * done: as soon as so much of the time that this would take has been wasted
 */
#define YIELD_MIN           0.35
#define FUTILE_WASTE        0.1
/* Epochs without progress, throttled, before the end is forced */
#define STUCK_EPOCHS        20

/* A smaller part of the link that goes to waste is not worth a stop */
#define LOSS_MIN          0.05
/* unless it adds up to this part of the bound */
#define LOSS_SHARE_MAX    0.03

/*
 * What seems to be out of reach for this part of the time that is left, or
 * for so many seconds, is given up.  While the bound is far, another look
 * costs next to nothing; and one slow second is no slow link.  To cancel
 * has even more time: the guest is not stopped meanwhile.
 */
#define PATIENCE_SHARE    0.1
#define PATIENCE_MAX      5.0
#define PATIENCE_CANCEL   0.5
/*
 * No stop for the bound before so much of the link has been seen, as long
 * as that overruns it by this part at most
 */
#define DOUBT_SHARE       0.005
/*
 * To cancel is sure only when the bound has passed, if a cap has hidden what
 * the link carries: the guest is stopped if the bound may be missed by this
 * part, and not if by more
 */
#define DOUBT_CANCEL      0.1
/* What the stop takes is not known: do not stop in the first half, at least */
#define HOPE_SHARE        0.5

/*
 * A small multiple of what a sync costs; a larger one while mtx works,
 * when nothing waits for the end of an epoch.
 */
double tlm_plan_epoch_length(const TlmPlanner *p, const TlmPlanParams *params,
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

void tlm_plan_throttle(TlmPlanner *p, const TlmPlanParams *params)
{
    double speed = ratio(tlm_plan_live_bandwidth(p, params), p->wire_per_byte);

    p->throttled = true;
    p->speed = sane(ratio(THROTTLE_SHARE * speed, p->dirty_rate_most),
                    SPEED_MIN, SPEED_MAX);
    p->stuck = 0;
    p->least_left = FOREVER;
    p->redirty = THROTTLE_SHARE * speed;
    p->pulse = ratio(p->redirty, p->speed);
    p->epoch = tlm_plan_epoch_length(p, params, false);
    /* learn soon what a pulse of this length does */
    shorten_epoch(p, EPOCH_MIN);
}

/*
 * The user has changed his mind: the reason why the guest is throttled is
 * gone.  Whether there is another one, the next decision will show.
 */
void tlm_plan_release(TlmPlanner *p, const TlmPlanParams *params,
                      bool cap_raised)
{
    bool more_time = p->throttled_bound_ms &&
                     (cap_raised || !params->time_bound_ms ||
                      params->time_bound_ms > p->throttled_bound_ms);

    if (p->throttled &&
        (params->converge == TLM_PLAN_CONVERGE_NONE || more_time)) {
        p->throttled = false;
        p->throttled_bound_ms = 0;
        p->speed = 1;
    }
}

/* Follow what the pulses really dirty */
void tlm_plan_adjust_throttle(TlmPlanner *p, const TlmPlanParams *params,
                              const TlmPlanNow *n, double again)
{
    double speed = ratio(tlm_plan_live_bandwidth(p, params), p->wire_per_byte);
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

/* The live stage after mtx's pass, TLM_PLAN_CONVERGE_AUTO */
void tlm_plan_converge(TlmPlanner *p, const TlmPlanParams *params,
                       const TlmPlanNow *n, double fit, TlmPlanDecision *d)
{
    double speed = ratio(tlm_plan_live_bandwidth(p, params) * p->duty,
                         p->wire_per_byte);
    double left = n->dirty + n->unsent;
    double full, slow, refill;
    bool send_hot;

    if (left + tlm_plan_dirtied_meanwhile(p) <= fit) {
        d->action = TLM_PLAN_SWITCHOVER;
        d->reason = TLM_PLAN_REASON_FITS;
        return;
    }
    if (p->throttled && left <= tlm_plan_dirtied_meanwhile(p)) {
        d->action = TLM_PLAN_SWITCHOVER;
        d->reason = TLM_PLAN_REASON_LESS_THAN_REDIRTIED;
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
        } else if (p->stuck >= STUCK_EPOCHS && !tlm_plan_link_dead(p)) {
            d->action = TLM_PLAN_SWITCHOVER;
            d->reason = TLM_PLAN_REASON_NO_PROGRESS;
            return;
        }
        d->send_hot = true;
        d->reason = TLM_PLAN_REASON_THROTTLED;
        shorten_epoch(p, ratio(left - fit, speed * (1 - THROTTLE_SHARE)) +
                      EPOCH_FLOOR / 4);
        return;
    }

    slow = tlm_plan_throttled_time(p, params, n->unsent, n->dirty, fit);
    if (!p->passed) {
        p->passed = true;
        p->passed_at = p->clock;
        p->patience = FULL_SPEED_PATIENCE * slow + 4 * p->epoch;
    }
    refill = MIN(p->redirty, p->cold_rate);
    full = tlm_plan_full_speed_time(p, params, left, n->hot, refill, fit,
                                    &send_hot);

    if (full <= FULL_SPEED_PATIENCE * slow + p->epoch &&
        p->clock - p->passed_at <= p->patience) {
        d->send_hot = send_hot;
        d->reason = TLM_PLAN_REASON_SHRINKS;
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
        d->reason = TLM_PLAN_REASON_SETTLED_FIRST;
        shorten_epoch(p, ratio(n->dirty - n->hot, speed));
        return;
    }
    tlm_plan_throttle(p, params);
    d->send_hot = true;
    d->reason = TLM_PLAN_REASON_DOES_NOT_SHRINK;
}

/*
 * While mtx works: should dtx send settled pages?  Over a long pass even
 * they are written to again, so limit what that may cost.
 */
bool tlm_plan_dtx_pays(const TlmPlanner *p, const TlmPlanParams *params,
                       const TlmPlanNow *n, const TlmPlanForecast *f)
{
    double speed = ratio(tlm_plan_live_bandwidth(p, params), p->wire_per_byte);

    return p->throttled || p->credit > 0 ||
           tlm_plan_last_sweep_due(params, f->pass, n->dirty - n->hot, speed);
}

/*
 * While mtx works: has it become pointless to let the guest run at full
 * speed, since nearly all that is sent has to be sent again, and the
 * guest has to be throttled in the end anyway?
 *
 * That may last, or be a burst.  Throttled, the guest stands nearly still
 * for all of what is left, so wait until a part of that has been lost: a
 * burst of a guest whose working set is small never gets there, as pages
 * that are dirty already cannot be wasted again.
 */
bool tlm_plan_pass_is_futile(const TlmPlanner *p, const TlmPlanParams *params,
                             const TlmPlanNow *n, const TlmPlanForecast *f,
                             double fit)
{
    double slow = tlm_plan_throttled_time(p, params, n->unsent, n->dirty, fit);
    bool send_hot;

    if (p->yield >= YIELD_MIN || p->wasted < FUTILE_WASTE * slow ||
        f->left <= fit) {
        return false;
    }
    return tlm_plan_full_speed_time(p, params, f->left, f->hot, f->refill, fit,
                                    &send_hot) >
           FULL_SPEED_PATIENCE *
           tlm_plan_throttled_time(p, params, 0, f->left, fit);
}

/*
 * The bound.  Returns true if it has taken the decision.
 *
 * Stopping now takes until clock + stop.  Each epoch that is spent live
 * moves this end by the part of it that was not useful.
 *
 * A cap that binds hides what the link carries in stage 3.  What only the
 * cap makes late is not out of reach, and no reason to stop early.
 */
bool tlm_plan_keep_bound(TlmPlanner *p, const TlmPlanParams *params,
                         const TlmPlanNow *n, const TlmPlanStop *stop,
                         bool trusted, TlmPlanDecision *d)
{
    double bound = params->time_bound_ms / MS_PER_S;
    double time_left = bound - p->clock;
    double slack = time_left - stop->guess;
    double noise = bound * BOUND_NOISE_SHARE + BOUND_NOISE;
    double stop_bw = tlm_plan_stop_bandwidth_guess(p, params);
    double gain = stop_bw > 0 ?
        sane(tlm_plan_live_bandwidth(p, params) / stop_bw, 0, 1) : 0;
    double loss = 1 - MIN(p->yield_least, 1) * gain;
    bool cancel = params->bound_action == TLM_PLAN_BOUND_CANCEL;
    double patience = cancel ?
        MAX(bound * PATIENCE_SHARE, PATIENCE_CANCEL) :
        time_left * PATIENCE_SHARE;
    double drift, allowed, fit, end, waste, waited;
    bool lost = time_left - stop->least < -noise, far, nearly, told, sure;
    bool blind = stop->guess < stop->safe;  /* a cap is all that is known */

    if (time_left < -noise) {
        /* It has passed: whatever is known of the link, that is sure */
        d->bound_reachable = false;
        if (cancel) {
            d->action = TLM_PLAN_CANCEL;
            d->reason = TLM_PLAN_REASON_BOUND_PASSED;
            return true;
        }
    }
    /* what the user says of the link is not doubted */
    patience = params->switchover_bandwidth ? 0 : MIN(patience, PATIENCE_MAX);
    if (stop->guess >= FOREVER && p->clock < bound) {
        return false;           /* nothing is known yet */
    }
    if (blind) {
        slack = MAX(slack, time_left - bound * HOPE_SHARE);
    }
    if (slack < -noise && !blind) {
        if (!p->unreachable++) {
            p->unreachable_at = p->clock;
        }
        d->bound_reachable = time_left >= -noise && (!trusted || !lost);
        /* once mtx is done there is no time left to make sure */
        far = slack < -noise - bound / 4;
        nearly = !lost && cancel ? slack > -bound * DOUBT_CANCEL
                                 : !cancel && slack > -bound * LOSS_SHARE_MAX;
        waited = p->clock - p->unreachable_at;
        told = trusted ? p->unreachable >= 2
                       : tlm_plan_stop_known(p, params) && far &&
                         n->unsent <= 0;
        sure = told && (nearly || waited > patience - EPOCH_MIN);
        sure |= p->clock > bound;
        if (cancel) {
            if (sure && lost) {
                d->bound_reachable = false;
                d->action = TLM_PLAN_CANCEL;
                d->reason = TLM_PLAN_REASON_BOUND_OUT_OF_REACH;
                return true;
            }
            if (!trusted && !told) {
                return false;
            }
            if (!sure || !nearly) {
                /* nor is the guest stopped for what seems to be of no use */
                shorten_epoch(p, EPOCH_MIN);
                d->send_hot = p->throttled || n->unsent <= 0;
                d->reason = TLM_PLAN_REASON_BOUND_DOUBTED;
                return true;
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
    drift = trusted && slack < 0 ? stop->guess * loss - slack : 0;
    allowed = cancel ? noise : bound * LOSS_SHARE_MAX;
    if ((slack < p->epoch * loss + 0.005 && loss > LOSS_MIN) ||
        drift > allowed) {
        /* a shorter epoch may still be worth it */
        if (slack > EPOCH_MIN * loss + 0.005) {
            shorten_epoch(p, (slack - 0.005) / loss);
        } else if (p->bw_time < patience && slack > -bound * DOUBT_SHARE) {
            shorten_epoch(p, EPOCH_MIN);
            return false;
        } else if (!tlm_plan_link_dead(p)) {
            d->action = TLM_PLAN_SWITCHOVER;
            d->reason = lost && slack < -noise ?
                TLM_PLAN_REASON_BOUND_OVERRUN :
                TLM_PLAN_REASON_BOUND_REQUIRES_STOP;
            return true;
        }
    }

    if (params->converge != TLM_PLAN_CONVERGE_AUTO || p->throttled ||
        !trusted) {
        return false;
    }
    /* the last moment to throttle and keep bound and downtime limit */
    fit = tlm_plan_fitting(p, params, n->device);
    end = p->clock + tlm_plan_stop_time(p, params, 0, fit, n->device) +
          tlm_plan_throttled_time(p, params, n->unsent, n->dirty, fit);
    waste = p->epoch * (1 - MIN(p->yield, 1));
    if (blind && end > bound + noise) {
        return false;           /* it cannot be known to be of any use */
    }
    if (end + noise + 2 * waste > bound && waste > 0.05 * p->epoch &&
        n->unsent + n->dirty > fit) {
        tlm_plan_throttle(p, params);
        p->throttled_bound_ms = params->time_bound_ms;
        d->send_hot = true;
        d->reason = TLM_PLAN_REASON_BOUND_REQUIRES_THROTTLE;
        return true;
    }
    return false;
}
