/*
 * Checksums of a sparse file, as in its manifest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SUMS_H
#define MEMSERVER_SUMS_H

#include "manifest.h"

/*
 * Calls @chunk for each chunk of a file of @size bytes, in @threads threads at
 * once, until one returns false.
 */
typedef bool SumsChunk(void *opaque, size_t number, GError **errp);
bool sums_for_each_chunk(uint64_t size, unsigned threads, SumsChunk *chunk,
                         void *opaque, GError **errp);

typedef struct Sum Sum;

Sum *sum_new(void);
/* A block that is not zero, at its offset in the file. */
void sum_block(Sum *s, uint64_t offset, const void *data, size_t size);
/* Frees @s. */
void sum_end(Sum *s, ManifestSum result);

/* Whether the file at @path has the @size and the checksums that it should. */
bool sums_verify(const char *path, uint64_t size, const GArray *sums,
                 unsigned threads, GError **errp);

#endif
