/*
 * TLM: why the planner decided as it did, in QAPI's words and in a person's
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "decision.h"

/*
 * The planner knows nothing of QAPI.  Its reasons are QAPI's decisions in the
 * same order.  Only the last one is not, as the dry run alone gives it.
 */
#define SAME(name) \
    QEMU_BUILD_BUG_ON((int)TLM_PLAN_REASON_##name != \
                      (int)MIGRATION_TLM_DECISION_##name)

SAME(SETUP);
SAME(PASS);
SAME(PASS_ENDED);
SAME(SWITCHOVER_REQUESTED);
SAME(FITS);
SAME(LESS_THAN_REDIRTIED);
SAME(SHRINKS);
SAME(SETTLED_FIRST);
SAME(DOES_NOT_SHRINK);
SAME(PASS_FUTILE);
SAME(THROTTLED_PASS);
SAME(THROTTLED);
SAME(NO_PROGRESS);
SAME(BOUND_REQUIRES_STOP);
SAME(BOUND_REQUIRES_THROTTLE);
SAME(BOUND_OVERRUN);
SAME(BOUND_DOUBTED);
SAME(BOUND_OUT_OF_REACH);
SAME(BOUND_PASSED);
SAME(DESTINATION_NOT_READY);
SAME(LINK_DEAD);
SAME(HELD);
SAME(PASS_WASTED);
SAME(TOO_LONG_TO_STOP);
SAME(BOUND_REQUIRES_POSTCOPY);

QEMU_BUILD_BUG_ON((int)TLM_PLAN_REASON_ESTIMATE !=
                  (int)MIGRATION_TLM_DECISION__MAX);
QEMU_BUILD_BUG_ON(TLM_PLAN_REASON__MAX != TLM_PLAN_REASON_ESTIMATE + 1);

MigrationTlmDecision tlm_decision(TlmPlanReason reason)
{
    return (MigrationTlmDecision)reason;
}

const char *tlm_decision_text(MigrationTlmDecision decision)
{
    return tlm_plan_reason_str((TlmPlanReason)decision);
}
