/*
 * TLM planner: predictions, for query-migrate
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_PREDICT_H
#define TLM_PLANNER_PREDICT_H

#include "plan.h"

/*
 * Fill in the predictions of @d, whose action and bound_reachable are set.
 * Returns the predicted total in s; FOREVER: not known.
 */
double tlm_predict(const TlmPlanView *v, const TlmPlanCourse *course,
                   TlmPlanDecision *d);

#endif
