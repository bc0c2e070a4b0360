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
 * Less stops the guest more than needed; more makes the throttled time
 * longer by as much.
 */
#define THROTTLE_SHARE      0.05

/*
 * Full speed may take so many times as long as throttling before it loses.
 * See docs/planner.md.
 */
#define FULL_SPEED_PATIENCE 2.5

/* Fill @v->pass: run the live stage forward at full guest speed */
void tlm_forecast_pass(TlmPlanView *v);

/*
 * converge=none: the pass must not end with pages that could have been
 * sent.  Is it time for dtx to send the @settled ones, at @rate?
 */
bool tlm_forecast_last_sweep(const TlmPlanView *v, double pass_left,
                             double settled, double rate);

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

#endif
