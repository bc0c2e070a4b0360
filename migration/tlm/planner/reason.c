/*
 * TLM planner: the reason of a decision in words
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "planner.h"

static const char *const texts[TLM_PLAN_REASON__MAX] = {
    [TLM_PLAN_REASON_SETUP] = "setup",
    [TLM_PLAN_REASON_PASS] = "mtx has not passed over all RAM yet",
    [TLM_PLAN_REASON_PASS_ENDED] = "mtx has passed over all RAM",
    [TLM_PLAN_REASON_SWITCHOVER_REQUESTED] = "asked for",
    [TLM_PLAN_REASON_FITS] = "what is left fits in the downtime limit",
    [TLM_PLAN_REASON_LESS_THAN_REDIRTIED] =
        "less is left than becomes dirty while the guest stops",
    [TLM_PLAN_REASON_SHRINKS] = "what is left shrinks at full guest speed",
    [TLM_PLAN_REASON_SETTLED_FIRST] =
        "settled pages first, at full guest speed",
    [TLM_PLAN_REASON_DOES_NOT_SHRINK] =
        "what is left does not shrink: throttle",
    [TLM_PLAN_REASON_PASS_FUTILE] =
        "most of what is sent is dirtied again: throttle",
    [TLM_PLAN_REASON_THROTTLED_PASS] =
        "throttled, mtx has not passed over all RAM yet",
    [TLM_PLAN_REASON_THROTTLED] = "throttled until what is left fits",
    [TLM_PLAN_REASON_NO_PROGRESS] =
        "no progress, and the guest cannot be slowed more",
    [TLM_PLAN_REASON_BOUND_REQUIRES_STOP] = "the time bound requires it",
    [TLM_PLAN_REASON_BOUND_REQUIRES_THROTTLE] =
        "the time bound requires throttling",
    [TLM_PLAN_REASON_BOUND_OVERRUN] =
        "the time bound is out of reach: overrun least",
    [TLM_PLAN_REASON_BOUND_DOUBTED] = "the time bound seems to be out of reach",
    [TLM_PLAN_REASON_BOUND_OUT_OF_REACH] = "the time bound cannot be kept",
    [TLM_PLAN_REASON_BOUND_PASSED] = "the time bound has passed",
    [TLM_PLAN_REASON_DESTINATION_NOT_READY] =
        "the destination is not ready for the switchover",
    [TLM_PLAN_REASON_LINK_DEAD] =
        "nothing gets through: no switchover into a dead link",
    [TLM_PLAN_REASON_HELD] = "ready, and held until asked for",
    [TLM_PLAN_REASON_PASS_WASTED] =
        "most of the pass is in vain, and memory holds what is left",
    [TLM_PLAN_REASON_TOO_LONG_TO_STOP] =
        "a stop would take longer than the downtime limit: post-copy",
    [TLM_PLAN_REASON_BOUND_REQUIRES_POSTCOPY] =
        "the time bound requires post-copy",
    [TLM_PLAN_REASON_ESTIMATE] = "estimate",
};

const char *tlm_plan_reason_str(TlmPlanReason reason)
{
    return texts[reason];
}
