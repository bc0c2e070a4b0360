/*
 * Writes a checkpoint to the disk
 *
 *   NAME.part -> NAME.checkpoint, then NAME.json
 *
 * as "tlm checkpoint" does: its list, verify and restore work on the
 * directory of a virtual machine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_WRITER_H
#define MEMSERVER_WRITER_H

#include "checkpoint.h"

/*
 * The file is on the disk when this returns its checksums (ManifestSum), and
 * c->file tells its size.  @limit: bytes that the file may take.
 */
GArray *writer_write(const char *dir, Checkpoint *c, uint64_t limit,
                     unsigned threads, GError **errp);

/* The manifest is on the disk, too, when this returns true. */
bool writer_sign(const char *dir, Checkpoint *c, const GArray *sums,
                 GError **errp);

/* After an error of either nothing is left. */

#endif
