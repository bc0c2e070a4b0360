/*
 * TLM planner: how long an epoch is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_EPOCH_LENGTH_H
#define TLM_PLANNER_EPOCH_LENGTH_H

#include "now.h"

/*
 * s; adaptive epochs last at least so long before the end is near.  Shorter
 * ones measure the buffers, not the link.  With three times as much, the
 * planner answers too late (bound-changes).  Epochs well below the window in
 * which pages stay hot show the guest's working set best.
 */
#define EPOCH_MIN       0.1

/* s of the next epoch; @in_pass: mtx works and the guest has full speed */
double tlm_plan_epoch_length(const TlmPlanNow *n, bool in_pass);

/*
 * @epoch, or less: let the epoch end in @when s, when the event that it waits
 * for is expected.
 */
double tlm_plan_epoch_shorten(const TlmPlanNow *n, double epoch, double when);

#endif
