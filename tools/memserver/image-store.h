/*
 * The image of a checkpoint that the store has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_IMAGE_STORE_H
#define MEMSERVER_IMAGE_STORE_H

#include "image.h"
#include "store.h"

/*
 * From memory, or else from its file.  The image keeps what it needs, even
 * when the checkpoint is removed.
 */
MemImage *mem_image_from_store(const Store *s, Checkpoint *c, GError **errp);

#endif
