/*
 * TLM planner: does what is left become less, with the guest slowed?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "stuck.h"

/*
 * Epochs without progress, slowed, before the guest is paused, and as many
 * before the end is forced.  A link that is slow for a second recovers.  With
 * three times as many a limit that cannot be kept takes too long
 * (impossible-limit).
 */
#define STUCK_EPOCHS        20
/* Progress is one part in so many of what could be sent in an epoch */
#define PROGRESS_PART       10

void tlm_stuck_hope(TlmStuck *s)
{
    *s = (TlmStuck) { .least = FOREVER };
}

void tlm_stuck_retry(TlmStuck *s)
{
    s->epochs = 0;
}

bool tlm_stuck_look(TlmStuck *s, const TlmPlanView *v)
{
    double progress = v->mean_rate * v->now.epoch / PROGRESS_PART;
    double left = v->now.dirty + v->now.unsent;

    if (left < s->least - progress) {
        s->least = left;
        s->epochs = 0;
        return false;
    }
    return ++s->epochs >= STUCK_EPOCHS;
}
