/*
 * Epochs: what arrives before what
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "epoch.h"
#include "error.h"

void epochs_init(Epochs *e, unsigned channels)
{
    g_assert(channels <= EPOCH_MAX_CHANNELS);
    memset(e, 0, sizeof(*e));
    g_mutex_init(&e->lock);
    g_cond_init(&e->changed);
    e->channels = channels;
}

void epochs_clear(Epochs *e)
{
    g_mutex_clear(&e->lock);
    g_cond_clear(&e->changed);
}

bool epochs_enter(Epochs *e, unsigned channel, GError **errp)
{
    bool ok;

    g_mutex_lock(&e->lock);
    ok = !e->closed && !e->broken;
    if (ok) {
        e->busy[channel] = e->dirty[channel] = true;
    }
    g_mutex_unlock(&e->lock);
    return ok || ms_fail(errp, "pages come after the end of RAM");
}

void epochs_leave(Epochs *e, unsigned channel)
{
    g_mutex_lock(&e->lock);
    e->busy[channel] = false;
    g_cond_broadcast(&e->changed);
    g_mutex_unlock(&e->lock);
}

static bool all_had(const Epochs *e, uint64_t syncs)
{
    for (unsigned i = 0; i < e->channels; i++) {
        if (e->syncs[i] < syncs) {
            return false;
        }
    }
    return true;
}

static bool any_had_more(const Epochs *e, uint64_t syncs)
{
    for (unsigned i = 0; i < e->channels; i++) {
        if (e->syncs[i] > syncs) {
            return true;
        }
    }
    return false;
}

static bool any(const Epochs *e, const bool *what)
{
    for (unsigned i = 0; i < e->channels; i++) {
        if (what[i]) {
            return true;
        }
    }
    return false;
}

bool epochs_sync(Epochs *e, unsigned channel, GError **errp)
{
    uint64_t mine;
    bool ok;

    g_mutex_lock(&e->lock);
    mine = ++e->syncs[channel];
    e->dirty[channel] = false;
    g_cond_broadcast(&e->changed);
    if (e->closed) {
        e->broken = true;
    }
    while (!e->broken && !all_had(e, mine)) {
        g_cond_wait(&e->changed, &e->lock);
    }
    ok = !e->broken;
    g_mutex_unlock(&e->lock);
    return ok || ms_fail(errp, "a channel waits in vain for the others");
}

bool epochs_complete(Epochs *e, uint64_t syncs, GError **errp)
{
    bool ok;

    g_mutex_lock(&e->lock);
    while (!e->broken && (!all_had(e, syncs) || any(e, e->busy))) {
        g_cond_wait(&e->changed, &e->lock);
    }
    if (e->broken) {
        ok = ms_fail(errp, "a channel has failed");
    } else if (any(e, e->dirty)) {
        ok = ms_fail(errp, "pages come after the last SYNC of a channel");
    } else {
        e->closed = true;
        ok = !any_had_more(e, syncs) ||
            ms_fail(errp, "a channel has had more SYNCs than the main stream "
                    "says");
    }
    g_mutex_unlock(&e->lock);
    return ok;
}

void epochs_break(Epochs *e)
{
    g_mutex_lock(&e->lock);
    e->broken = true;
    g_cond_broadcast(&e->changed);
    g_mutex_unlock(&e->lock);
}
