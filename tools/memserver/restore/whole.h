/*
 * Whole restore: the source of a migration with multifd, made from an image
 *
 * QEMU loads all of RAM, and then the devices' state, as from a QEMU that has
 * been stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_WHOLE_H
#define RESTORE_WHOLE_H

#include "image.h"
#include "target.h"

/* QEMU numbers channels by a byte. */
#define WHOLE_MAX_CHANNELS 255

typedef struct WholeWish {
    TargetWish target;
    unsigned channels;                  /* QEMU's multifd-channels */
    unsigned part, parts;               /* see below; parts: 0 as 1 */
    const char *uuid;                   /* QEMU's; NULL: it has none */
} WholeWish;

typedef struct Whole Whole;

/*
 * Takes a reference.  With more than one part, the image has some of the pages,
 * and other servers restore the others at the same time.  Part 0 has the main
 * stream; part i has channels i, i + parts, i + 2 * parts, ...
 */
Whole *whole_new(MemImage *image, const WholeWish *wish, GError **errp);
void whole_free(Whole *w);

/*
 * Blocks until the end.  True: QEMU has said that it has all; of a part other
 * than 0: QEMU has taken all that this part has, and has closed the channels.
 */
bool whole_run(Whole *w, GError **errp);

/* These are for any thread. */
uint64_t whole_sent(Whole *w);          /* bytes of pages */
/*
 * QEMU has the main stream.  With TLS it takes the first connection for that,
 * so the servers of other parts must not connect before.
 */
bool whole_connected(Whole *w);
void whole_stop(Whole *w);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Whole, whole_free)

#endif
