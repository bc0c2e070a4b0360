/*
 * TLM planner: how long the rest of the live stage would take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_FORECAST_H
#define TLM_PLANNER_FORECAST_H

#include "view.h"

/*
 * Part of what the link carries that a throttled guest may dirty again.
 * Less stops the guest more than needed.  More makes the throttled time, in
 * which the guest does next to nothing, longer by as much.
 */
#define THROTTLE_SHARE      0.05

/*
 * Full speed may take so many times as long as throttling.  With once, a guest
 * that would converge by itself is slowed (tlm-sim --selftest).  With many
 * times, the user waits although throttling would help.
 */
#define FULL_SPEED_PATIENCE 2.5

/* Fill @v->pass: run the live stage forward at full guest speed */
void tlm_forecast_pass(TlmPlanView *v);

/*
 * While mtx works: should dtx send settled pages?  Over a long pass the guest
 * writes even to them again, so this limits what they may cost.
 */
bool tlm_forecast_dtx_pays(const TlmPlanView *v);

/*
 * s until @left and @unsent fit in @fit, if the guest is throttled from now
 * on and dirties @share of the link.
 */
double tlm_forecast_throttled(const TlmPlanView *v, double share,
                              double unsent, double left, double fit);

/*
 * s until @left fits, at full speed; FOREVER if it never will.  @hot is the
 * part that dtx holds back; @send_hot: it is better to send them.
 */
double tlm_forecast_full_speed(const TlmPlanView *v, double epoch, double left,
                               double hot, double refill, bool *send_hot);

/* Is @full s at full speed better than @slow s throttled? */
bool tlm_forecast_full_speed_pays(double full, double slow, double epoch);

/*
 * While mtx works: is it pointless to let the guest run at full speed, because
 * nearly all sent pages have to be sent again, and the guest has to be
 * throttled in the end anyway?
 */
bool tlm_forecast_futile(const TlmPlanView *v, double epoch);

/*
 * The same for a checkpoint: is the rest of the pass better not sent, but kept
 * in memory when the guest is paused?
 */
bool tlm_forecast_in_vain(const TlmPlanView *v);

#endif
