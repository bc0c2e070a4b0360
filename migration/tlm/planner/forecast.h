/*
 * TLM planner: what the rest of the live stage would take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_FORECAST_H
#define TLM_PLANNER_FORECAST_H

#include "view.h"

/*
 * Part of what the link carries that a throttled guest may dirty again.
 * Less stops the guest more than needed; more makes the throttled time,
 * in which it does next to nothing, longer by as much.
 */
#define THROTTLE_SHARE      0.05

/*
 * Full speed may take so many times as long as throttling before it loses.
 * With once, a guest that would converge by itself is slowed (tlm-sim
 * --selftest); with many times, the user waits for what throttling is for.
 */
#define FULL_SPEED_PATIENCE 2.5

/* Fill @v->pass: run the live stage forward at full guest speed */
void tlm_forecast_pass(TlmPlanView *v);

/*
 * While mtx works: should dtx send settled pages?  Over a long pass even
 * they are written to again, so limit what that may cost.
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
 * part that dtx holds back; @send_hot: it had better not.
 */
double tlm_forecast_full_speed(const TlmPlanView *v, double epoch, double left,
                               double hot, double refill, bool *send_hot);

/* Is @full s at full speed better than @slow s throttled? */
bool tlm_forecast_full_speed_pays(double full, double slow, double epoch);

/*
 * While mtx works: has it become pointless to let the guest run at full
 * speed, since nearly all that is sent has to be sent again, and the guest
 * has to be throttled in the end anyway?
 */
bool tlm_forecast_futile(const TlmPlanView *v, double epoch);

#endif
