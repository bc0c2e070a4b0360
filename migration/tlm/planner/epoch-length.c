/*
 * TLM planner: how long an epoch is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "arith.h"
#include "epoch-length.h"

/*
 * s; the planner looks at bound, link and user only between epochs, so after a
 * longer epoch it answers late (epoch-length).  It may be longer if a sync
 * alone takes over a tenth of this: syncs must not eat the live stage.  With a
 * third of EPOCH_MAX_SYNC, 24 TiB take too long (tlm-sim --selftest).
 */
#define EPOCH_MAX       1.0
#define EPOCH_MAX_SYNC  5.0
/* s; never longer, also with tlm-epoch (epoch-length): a stop waits for it */
#define EPOCH_CEILING   10.0
/*
 * An epoch lasts so many syncs of the dirty log, so that syncs take a tenth of
 * the time; a third of it fails 24 TiB as well.  It lasts so many times longer
 * while mtx works and nothing waits for its end.
 */
#define EPOCH_SYNCS     10.0
#define EPOCH_PASS      3.0
/*
 * s, and number, of the first epochs of a checkpoint: they tell whether its
 * pass is in vain.  Three times as long would be a third of a pass over 1 GiB.
 */
#define EPOCH_LOOK      0.03
#define LOOK_EPOCHS     2

/*
 * A small multiple of the cost of a sync, or a larger one while mtx works and
 * nothing waits for the end of an epoch
 */
double tlm_plan_epoch_length(const TlmPlanNow *n, bool in_pass)
{
    double length;

    if (n->fixed_epoch) {
        return sane(n->fixed_epoch, EPOCH_FLOOR, EPOCH_CEILING);
    }
    if (in_pass && n->keep > 0 && n->step < LOOK_EPOCHS) {
        return MAX(EPOCH_LOOK, n->sync * 2);
    }
    length = n->sync * EPOCH_SYNCS;
    if (length > EPOCH_MAX) {
        return MIN(length, EPOCH_MAX_SYNC);
    }
    if (in_pass) {
        length = MIN(length * EPOCH_PASS, EPOCH_MAX);
    }
    return MAX(length, EPOCH_MIN);
}

double tlm_plan_epoch_shorten(const TlmPlanNow *n, double epoch, double when)
{
    double least = MAX(EPOCH_FLOOR, n->sync * 2);

    return when < epoch ? MIN(epoch, MAX(when, least)) : epoch;
}
