/*
 * A claim: that the client that wants a checkpoint is still there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "claim.h"

struct Claim {
    gatomicrefcount refs;
    gint over;                          /* atomic */
};

Claim *claim_new(void)
{
    Claim *c = g_new0(Claim, 1);

    g_atomic_ref_count_init(&c->refs);
    return c;
}

Claim *claim_ref(Claim *c)
{
    if (c) {
        g_atomic_ref_count_inc(&c->refs);
    }
    return c;
}

void claim_unref(Claim *c)
{
    if (c && g_atomic_ref_count_dec(&c->refs)) {
        g_free(c);
    }
}

void claim_end(Claim *c)
{
    g_atomic_int_set(&c->over, true);
}

bool claim_is_over(const Claim *c)
{
    return g_atomic_int_get(&c->over);
}
