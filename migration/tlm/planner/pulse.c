/*
 * TLM planner: how slowly a throttled guest runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "forecast.h"
#include "pulse.h"

/*
 * The highest speed of a throttled guest.  Its dirty rate may have been
 * measured in a lull, and a longer pulse could dirty all that has been sent.
 */
#define SPEED_MAX           0.2
/*
 * If even the shortest pulse dirties more than this part of the link carries,
 * the guest is paused.  Less would pause guests that still converge.  With half
 * of the link the throttled time would double.
 */
#define SHARE_MAX           0.20
/* An epoch at a higher speed was no pulse: the guest had to wait for others */
#define PULSE_SPEED_MAX     0.5
/* s that the average looks back when pulses dirty less than before */
#define FALL_TAU            1.0

void tlm_pulse_start(TlmPulse *t, const TlmPlanView *v)
{
    double redirty = tlm_pulse_redirty(v);

    t->speed = sane(ratio(redirty, v->guest.dirty_rate_most),
                    SPEED_MIN, SPEED_MAX);
    t->rate = ratio(redirty, t->speed);
}

double tlm_pulse_redirty(const TlmPlanView *v)
{
    return THROTTLE_SHARE * v->epoch_rate;
}

void tlm_pulse_follow(TlmPulse *t, const TlmPlanView *v)
{
    const TlmPlanNow *n = &v->now;
    double rate = v->epoch_rate;
    double want, seen;

    if (n->speed > PULSE_SPEED_MAX || n->speed <= 0 ||
        n->epoch < EPOCH_TELLS || rate <= 0) {
        return;
    }
    /* up at once, down slowly: pages that are still owed hide the rate */
    seen = v->guest.again / n->dt / n->speed;
    smooth(&t->rate, seen, n->dt, seen > t->rate ? 0 : FALL_TAU);
    want = MIN(ratio(THROTTLE_SHARE * rate, t->rate), t->speed * 2);
    if (want < SPEED_MIN) {
        want = t->rate * SPEED_MIN > SHARE_MAX * rate ? 0 : SPEED_MIN;
    }
    t->speed = MIN(want, SPEED_MAX);
}

void tlm_pulse_pause(TlmPulse *t)
{
    t->speed = 0;
}

void tlm_pulse_end(TlmPulse *t)
{
    t->speed = 1;
}

double tlm_pulse_share(const TlmPulse *t, const TlmPlanView *v)
{
    double share;

    if (t->speed > SPEED_MIN) {
        return THROTTLE_SHARE;
    }
    /* it cannot be slowed to dirty less */
    share = ratio(t->rate * t->speed * v->link.wire_per_byte,
                  v->mean_bandwidth);
    return MIN(share, SHARE_MAX);
}
