/*
 * Instant restore: the source of a post-copy migration, made from an image
 *
 *   connecting -> loading -> serving -> ending -> ended
 *        \-----------\-----------\---------\----> lost
 *
 * In "loading" QEMU loads the devices' state, or says which pages it has; in
 * "serving" its guest may run; in "ending" it has got all.  After "lost" a VM
 * that was served waits, and any server with the same image can go on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_INSTANT_H
#define RESTORE_INSTANT_H

#include "image.h"
#include "target.h"

typedef enum InstantState {
    INSTANT_CONNECTING,
    INSTANT_LOADING,
    INSTANT_SERVING,
    INSTANT_ENDING,
    INSTANT_ENDED,
    INSTANT_LOST,
    INSTANT__MAX,
} InstantState;

extern const char *const instant_states[INSTANT__MAX];

typedef struct InstantWish {
    TargetWish target;
    const uint64_t *page_sizes;         /* of QEMU's RAM blocks, in order */
    bool resume;                        /* QEMU waits in postcopy-recover */
    uint64_t rate;                      /* bytes/s unasked; 0: any */
} InstantWish;

typedef struct InstantStatus {
    InstantState state;
    uint64_t beats;                     /* grows as long as it lives */
    uint64_t owed, in_flight, sent;     /* bytes of pages */
    uint64_t there;                     /* that QEMU had, at a resume */
    uint64_t requests;
    int64_t loaded_us, ended_us;        /* since the start; 0: not yet */
    int64_t shortest_us;                /* from PING to PONG */
} InstantStatus;

typedef struct Instant Instant;

/* Takes a reference.  What @wish has is copied. */
Instant *instant_new(MemImage *image, const InstantWish *wish, GError **errp);
void instant_free(Instant *s);

/* Blocks until the end.  True: QEMU has said that it has all. */
bool instant_run(Instant *s, GError **errp);

/* These two are for any thread. */
void instant_status(Instant *s, InstantStatus *status);
void instant_stop(Instant *s);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Instant, instant_free)

#endif
