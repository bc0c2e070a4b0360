/*
 * TLM planner: the state machine that takes the decisions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_PLAN_H
#define TLM_PLANNER_PLAN_H

#include "view.h"

/* How the live stage goes on, for predictions */
typedef struct TlmPlanCourse {
    bool slowed;                /* the guest is throttled or paused */
    double share;               /* of the link, that it dirties then */
    double epoch;               /* s, of the next one */
} TlmPlanCourse;

/* Owns state, patience and throttle */
typedef struct TlmPlan TlmPlan;

TlmPlan *tlm_plan_new(void);
void tlm_plan_free(TlmPlan *p);

/* Is the guest slowed, as of the last step? */
bool tlm_plan_slows(const TlmPlan *p);
/* Has the plan been asked since mtx was done? */
bool tlm_plan_saw_pass_end(const TlmPlan *p);

/*
 * Decide: fills in all of @d but the predictions.  @cap_raised: see
 * tlm_link_learn().  Returns true if the guest has just been throttled.
 */
bool tlm_plan_decide(TlmPlan *p, const TlmPlanView *v, bool cap_raised,
                     TlmPlanDecision *d);

void tlm_plan_course(const TlmPlan *p, const TlmPlanView *v,
                     TlmPlanCourse *course);

#endif
