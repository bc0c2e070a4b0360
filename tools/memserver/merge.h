/*
 * The merge: which server of a set has the newest version of each page
 *
 * The head adds the ranks of all servers, in any order.  Then each server
 * drops the pages of which another one has a newer version.  It takes 5 bytes
 * for each page, and a bit for each page and server.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_MERGE_H
#define MEMSERVER_MERGE_H

#include "layout.h"

typedef struct Merge Merge;

/* @layout is copied. */
Merge *merge_new(const Layout *layout, unsigned parts, GError **errp);
void merge_free(Merge *m);

/*
 * @count pages from @first on, which are in the block, have @rank at @part.
 * Each page of each part is added once.  Two parts must not have the newest
 * version of a page in the same epoch: then it is not known which it is.
 * Returns false then; or before, if an older one is so.
 */
bool merge_add(Merge *m, unsigned part, unsigned block, uint64_t first,
               uint64_t count, uint32_t rank, GError **errp);

/* A bit for each page, set if @part must drop it; whole words. */
const uint64_t *merge_superseded(const Merge *m, unsigned part,
                                 unsigned block);

static inline uint64_t merge_words(uint64_t pages)
{
    return (pages + 63) / 64;
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Merge, merge_free)

#endif
