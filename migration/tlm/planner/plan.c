/*
 * TLM planner: the state machine that takes the decisions
 *
 *            +------+        mtx is done         +-------+
 *  start --->| PASS |--------------------------->| DRAIN |     full speed
 *            +------+                            +-------+
 *                |                                   |
 *                | full speed is futile, or          | what is left does not
 *                | the bound requires it             | shrink, or the bound
 *                |          +----------+             | requires it
 *                +--------->| THROTTLE |<------------+
 *                           +----------+                       slowed
 *                                | a pulse dirties too much,
 *                                v or no progress
 *                            +-------+
 *                            | PAUSE |                         not running
 *                            +-------+
 *
 *  THROTTLE, PAUSE --> PASS, DRAIN   the user no longer wants to converge, or
 *                                    has given more time or bandwidth, if the
 *                                    bound was the reason; or it is held
 *         DRAIN --> PASS     mtx has RAM to walk over again
 *  any but PASS --> itself  held after the pass: the user will ask
 *  any of these --> CANCEL   the bound is lost, and must not be overrun
 *               --> STOP     asked for, or the bound requires it
 *          PASS --> STOP     a checkpoint's, that is in vain
 *         DRAIN --> STOP     the pass is all that is wanted, or the rest fits
 *      THROTTLE --> STOP     the rest fits, or no more than is dirtied anyway
 *         PAUSE --> STOP     the same; or no progress
 *          STOP --> POSTCOPY it would take too long, and the user permits it
 * STOP, POSTCOPY --> WAIT    the destination is not ready or the link is dead:
 *                            an epoch at full speed
 *
 * WAIT, STOP, POSTCOPY and CANCEL last for one step.  The next step, if there
 * is one, goes on from the state before.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "bound.h"
#include "epoch-length.h"
#include "forecast.h"
#include "plan.h"
#include "pulse.h"
#include "stuck.h"

/* Epochs of DRAIN beside its patience: the first ones only measure */
#define DRAIN_EPOCHS        4
/*
 * Settled pages go first if so much of what is sent does not become dirty
 * again.  Pages that do are sent again when the guest is throttled.
 */
#define SETTLED_STAY        0.8
/*
 * s; the last epoch ends so much later than expected, because another epoch
 * would cost EPOCH_FLOOR
 */
#define END_MARGIN          (EPOCH_FLOOR / 4)

typedef enum {
    PASS,                       /* mtx walks over RAM */
    DRAIN,                      /* what is left is sent, at full speed */
    THROTTLE,                   /* the same, the guest being slowed */
    PAUSE,                      /* the same, the guest not running */
    LIVE_STATES,
    WAIT = LIVE_STATES,         /* STOP, but that cannot be done now */
    STOP,
    POSTCOPY,
    CANCEL,
} State;

struct TlmPlan {
    State state;                /* PASS to PAUSE */
    double epoch;               /* s, of the next one */
    double drain_since;         /* clock; FOREVER: there has been no DRAIN */
    double drain_patience;      /* s of it */
    TlmPulse pulse;
    uint64_t slowed_for_ms;     /* the bound that required it; 0: another */
    TlmStuck stuck;             /* since slowed */
    TlmBoundDoubt doubt;
};

/* What a rule says */
typedef struct {
    State to;
    TlmPlanReason reason;
    bool send_hot;              /* at full speed; when slowed it is sent */
    bool bound_reachable;
} Verdict;

TlmPlan *tlm_plan_new(void)
{
    TlmPlan *p = g_new0(TlmPlan, 1);

    p->epoch = EPOCH_MIN;
    p->drain_since = FOREVER;
    tlm_pulse_end(&p->pulse);
    return p;
}

void tlm_plan_free(TlmPlan *p)
{
    g_free(p);
}

static bool slowed(State s)
{
    return s == THROTTLE || s == PAUSE;
}

bool tlm_plan_slows(const TlmPlan *p)
{
    return slowed(p->state);
}

bool tlm_plan_saw_pass_end(const TlmPlan *p)
{
    return p->drain_since < FOREVER;
}

static void end_epoch_in(TlmPlan *p, const TlmPlanView *v, double when)
{
    p->epoch = tlm_plan_epoch_shorten(&v->now, p->epoch, when);
}

static double left(const TlmPlanView *v)
{
    return v->now.dirty + v->now.unsent;
}

static bool say(Verdict *o, State to, TlmPlanReason reason)
{
    o->to = to;
    o->reason = reason;
    return true;
}

/*
 * The rules.  A rule returns true if it has decided.  It does not change the
 * state, but says where to go, and why.
 */

static bool user_asks(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return v->now.asked && say(o, STOP, TLM_PLAN_REASON_SWITCHOVER_REQUESTED);
}

static bool keep_bound(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    switch (tlm_bound_call(&p->doubt, v, !slowed(p->state), &p->epoch,
                           &o->bound_reachable)) {
    case TLM_BOUND_NO_SAY:
        return false;
    case TLM_BOUND_DOUBTED:
        o->send_hot = v->now.unsent <= 0;
        return say(o, p->state, TLM_PLAN_REASON_BOUND_DOUBTED);
    case TLM_BOUND_THROTTLE:
        return say(o, THROTTLE, TLM_PLAN_REASON_BOUND_REQUIRES_THROTTLE);
    case TLM_BOUND_POSTCOPY:
        return say(o, POSTCOPY, TLM_PLAN_REASON_BOUND_REQUIRES_POSTCOPY);
    case TLM_BOUND_STOP:
        return say(o, STOP, TLM_PLAN_REASON_BOUND_REQUIRES_STOP);
    case TLM_BOUND_OVERRUN:
        return say(o, STOP, TLM_PLAN_REASON_BOUND_OVERRUN);
    case TLM_BOUND_LOST:
        return say(o, CANCEL, TLM_PLAN_REASON_BOUND_OUT_OF_REACH);
    case TLM_BOUND_PASSED:
        return say(o, CANCEL, TLM_PLAN_REASON_BOUND_PASSED);
    }
    g_assert_not_reached();
}

static bool pass_is_futile(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return v->now.converge && tlm_forecast_futile(v, p->epoch) &&
           say(o, THROTTLE, TLM_PLAN_REASON_PASS_FUTILE);
}

static bool pass_is_in_vain(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return tlm_forecast_in_vain(v) && say(o, STOP, TLM_PLAN_REASON_PASS_WASTED);
}

static bool pass_goes_on(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return say(o, PASS, TLM_PLAN_REASON_PASS);
}

static bool slowed_pass_goes_on(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return !v->now.mtx_done &&
           say(o, p->state, TLM_PLAN_REASON_THROTTLED_PASS);
}

/* Ready: what is left is of the moment when the user will ask */
static bool held(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return v->now.hold && v->now.mtx_done &&
           say(o, p->state, TLM_PLAN_REASON_HELD);
}

static bool pass_was_all(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return !v->now.converge && say(o, STOP, TLM_PLAN_REASON_PASS_ENDED);
}

static bool left_fits(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return left(v) + v->meanwhile <= v->fit &&
           say(o, STOP, TLM_PLAN_REASON_FITS);
}

static bool little_is_left(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    return left(v) <= v->meanwhile &&
           say(o, STOP, TLM_PLAN_REASON_LESS_THAN_REDIRTIED);
}

/* Send what is left at full speed while this pays; else throttle */
static bool drain(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    const TlmPlanNow *n = &v->now;
    double slow = tlm_forecast_throttled(v, THROTTLE_SHARE, n->unsent,
                                         n->dirty, v->fit);
    double refill = MIN(v->guest.redirty, v->guest.cold_rate);
    double settled = n->dirty - n->hot;
    double full;
    bool send_hot;

    if (p->drain_since >= FOREVER) {
        p->drain_since = n->clock;
        p->drain_patience = FULL_SPEED_PATIENCE * slow +
                            DRAIN_EPOCHS * p->epoch;
    }
    full = tlm_forecast_full_speed(v, p->epoch, left(v), n->hot, refill,
                                   &send_hot);
    if (n->clock - p->drain_since > p->drain_patience) {
        return say(o, THROTTLE, TLM_PLAN_REASON_DOES_NOT_SHRINK);
    }
    if (tlm_forecast_full_speed_pays(full, slow, p->epoch)) {
        o->send_hot = send_hot;
        end_epoch_in(p, v, full + END_MARGIN);
        return say(o, DRAIN, TLM_PLAN_REASON_SHRINKS);
    }
    /*
     * What is left will not fit at full speed.  Settled pages cost the same
     * now or later, so let the guest run while they are sent.
     */
    if (settled > v->mean_rate * p->epoch / 2 &&
        v->mean_rate - v->guest.redirty > v->mean_rate * SETTLED_STAY) {
        end_epoch_in(p, v, ratio(settled, v->mean_rate));
        return say(o, DRAIN, TLM_PLAN_REASON_SETTLED_FIRST);
    }
    return say(o, THROTTLE, TLM_PLAN_REASON_DOES_NOT_SHRINK);
}

static bool slowed_goes_on(TlmPlan *p, const TlmPlanView *v, Verdict *o)
{
    State to = p->state;

    if (tlm_stuck_look(&p->stuck, v)) {
        if (to == PAUSE && !v->link.dead) {
            return say(o, STOP, TLM_PLAN_REASON_NO_PROGRESS);
        }
        to = PAUSE;
    }
    end_epoch_in(p, v, ratio(left(v) - v->fit,
                             v->mean_rate * (1 - THROTTLE_SHARE)) +
                 END_MARGIN);
    return say(o, to, TLM_PLAN_REASON_THROTTLED);
}

/* The rules of each state: the first one that decides */
typedef bool Rule(TlmPlan *p, const TlmPlanView *v, Verdict *o);

enum { RULES_MAX = 8 };

static Rule *const rules[LIVE_STATES][RULES_MAX] = {
    [PASS]     = { user_asks, keep_bound, pass_is_futile, pass_is_in_vain,
                   pass_goes_on },
    [DRAIN]    = { user_asks, keep_bound, held, pass_was_all, left_fits,
                   drain },
    [THROTTLE] = { user_asks, keep_bound, held, slowed_pass_goes_on,
                   left_fits, little_is_left, slowed_goes_on },
    [PAUSE]    = { user_asks, keep_bound, held, slowed_pass_goes_on,
                   left_fits, little_is_left, slowed_goes_on },
};

/*
 * The user has changed a parameter, and the reason why the guest is slowed is
 * gone.  The rules will find another one, if there is any.
 */
static bool released(const TlmPlan *p, const TlmPlanView *v, bool cap_raised)
{
    return !v->now.converge ||
           (v->now.hold && v->now.mtx_done && !p->slowed_for_ms) ||
           (p->slowed_for_ms && (cap_raised || !v->now.bound_ms ||
                                 v->now.bound_ms > p->slowed_for_ms));
}

/* Takes in what has happened since the last step, before the rules */
static void take_note(TlmPlan *p, const TlmPlanView *v, bool cap_raised)
{
    if (cap_raised) {
        tlm_bound_forget(&p->doubt);
    }
    if (slowed(p->state) && released(p, v, cap_raised)) {
        tlm_pulse_end(&p->pulse);
        p->slowed_for_ms = 0;
        p->state = PASS;
    }
    if (!slowed(p->state)) {
        p->state = v->now.mtx_done ? DRAIN : PASS;
    }
    p->epoch = tlm_plan_epoch_length(&v->now, p->state == PASS);
    if (p->state == THROTTLE) {
        tlm_pulse_follow(&p->pulse, v);
        if (p->pulse.speed <= 0) {
            p->state = PAUSE;
        }
    }
}

static void start_throttling(TlmPlan *p, const TlmPlanView *v,
                             TlmPlanReason why)
{
    p->state = THROTTLE;
    p->slowed_for_ms = why == TLM_PLAN_REASON_BOUND_REQUIRES_THROTTLE
                       ? v->now.bound_ms : 0;
    tlm_pulse_start(&p->pulse, v);
    tlm_stuck_hope(&p->stuck);
    p->epoch = tlm_plan_epoch_length(&v->now, false);
    /* learn soon what a pulse of this length does */
    end_epoch_in(p, v, EPOCH_MIN);
}

/* What fits is better stopped and sent: nothing is at risk then */
static void choose_end(const TlmPlanView *v, Verdict *o)
{
    bool fits = tlm_view_fits(v, left(v) + v->meanwhile);

    if (o->to == POSTCOPY || v->now.postcopy) {
        o->to = fits ? STOP : POSTCOPY;
        if (o->reason == TLM_PLAN_REASON_PASS_ENDED) {
            o->reason = fits ? TLM_PLAN_REASON_FITS
                             : TLM_PLAN_REASON_TOO_LONG_TO_STOP;
        }
    }
}

/* A stop must wait for the destination, and for a link that is alive */
static void check_stop(const TlmPlanView *v, Verdict *o)
{
    if (!v->now.can_stop) {
        say(o, WAIT, TLM_PLAN_REASON_DESTINATION_NOT_READY);
    } else if (v->link.dead) {
        say(o, WAIT, TLM_PLAN_REASON_LINK_DEAD);
    }
}

/* Go where the rules say; returns true if the guest has just been throttled */
static bool go(TlmPlan *p, const TlmPlanView *v, const Verdict *o)
{
    switch (o->to) {
    case PASS:
    case DRAIN:
    case STOP:
    case POSTCOPY:
    case CANCEL:
        return false;
    case THROTTLE:
        if (p->state == THROTTLE) {
            return false;
        }
        start_throttling(p, v, o->reason);
        return true;
    case PAUSE:
        if (p->state != PAUSE) {
            p->state = PAUSE;
            tlm_stuck_retry(&p->stuck);
            tlm_pulse_pause(&p->pulse);
        }
        return false;
    case WAIT:
        tlm_stuck_hope(&p->stuck);
        return false;
    }
    g_assert_not_reached();
}

/* What the coordinator is to do in this state */
static void fill(const TlmPlan *p, const TlmPlanView *v, const Verdict *o,
                 TlmPlanDecision *d)
{
    bool live = o->to < LIVE_STATES, wait = o->to == WAIT;

    d->action = o->to == STOP ? TLM_PLAN_SWITCHOVER :
                o->to == POSTCOPY ? TLM_PLAN_POSTCOPY :
                o->to == CANCEL ? TLM_PLAN_CANCEL : TLM_PLAN_CONTINUE;
    d->reason = o->reason;
    d->bound_reachable = o->bound_reachable;
    d->send_hot = slowed(p->state) ? live || wait : live && o->send_hot;
    /* Slowing the guest is of no use while it waits for the destination */
    d->guest_speed = (live || o->to == STOP || o->to == POSTCOPY) &&
                     !v->link.dead ? p->pulse.speed : 1;
    d->epoch_ms = MAX(to_ms(p->epoch), 1);
}

bool tlm_plan_decide(TlmPlan *p, const TlmPlanView *v, bool cap_raised,
                     TlmPlanDecision *d)
{
    Verdict o = { .bound_reachable = true };
    Rule *const *rule;
    bool throttled;

    take_note(p, v, cap_raised);
    d->send_settled = p->state != PASS || tlm_forecast_dtx_pays(v);
    rule = rules[p->state];
    while (!(*rule)(p, v, &o)) {
        rule++;                 /* the last one always decides */
    }
    if (o.to == STOP || o.to == POSTCOPY) {
        choose_end(v, &o);
        check_stop(v, &o);
    }
    throttled = go(p, v, &o);
    fill(p, v, &o, d);
    return throttled;
}

void tlm_plan_course(const TlmPlan *p, const TlmPlanView *v,
                     TlmPlanCourse *course)
{
    course->slowed = slowed(p->state);
    course->share = tlm_pulse_share(&p->pulse, v);
    course->epoch = p->epoch;
}
