/*
 * A generation as a file that QEMU restores: mapped-ram
 *
 * The file does not exist; any part of it can be asked for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_MAPPED_H
#define MEMSERVER_MAPPED_H

#include "generation.h"

typedef struct Mapped Mapped;

/*
 * @state: device state.  Both must live longer than what is returned.  @part:
 * it is one part of a checkpoint; no QEMU restores such a file (image.h).
 */
Mapped *mapped_new(const Generation *g, const GByteArray *state, bool part);
void mapped_free(Mapped *m);

uint64_t mapped_size(const Mapped *m);

/* About how much of it is no hole. */
uint64_t mapped_data(const Mapped *m);

/*
 * Fills @to with @size bytes from offset @at of the file; zeros behind its
 * end.  Returns false if they are nothing but zeros.
 */
bool mapped_read(const Mapped *m, uint64_t at, void *to, size_t size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Mapped, mapped_free)

#endif
