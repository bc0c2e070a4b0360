/*
 * Epochs: what arrives before what
 *
 * A source sends a page again only after a SYNC on all channels.  So a channel
 * that has had its SYNC waits until all have had theirs.  A generation is
 * complete when RAM's END has come, and each channel has had as many SYNCs as
 * the main stream says, with nothing behind the last one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_EPOCH_H
#define MEMSERVER_EPOCH_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define EPOCH_MAX_CHANNELS 255

typedef struct Epochs {
    GMutex lock;
    GCond changed;
    unsigned channels;
    uint64_t syncs[EPOCH_MAX_CHANNELS];
    bool busy[EPOCH_MAX_CHANNELS];      /* is writing pages */
    bool dirty[EPOCH_MAX_CHANNELS];     /* has, since its last SYNC */
    bool closed;                        /* no more pages */
    bool broken;                        /* nobody is to wait any more */
} Epochs;

void epochs_init(Epochs *e, unsigned channels);
void epochs_clear(Epochs *e);

/* A channel begins, ends to write pages.  Returns false if it must not. */
bool epochs_enter(Epochs *e, unsigned channel, GError **errp);
void epochs_leave(Epochs *e, unsigned channel);

/* A SYNC has come; waits for the other channels. */
bool epochs_sync(Epochs *e, unsigned channel, GError **errp);

/* Waits until each channel has had @syncs; then closes. */
bool epochs_complete(Epochs *e, uint64_t syncs, GError **errp);

/* Something has failed: wakes all. */
void epochs_break(Epochs *e);

#endif
