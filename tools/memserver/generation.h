/*
 * One generation of a virtual machine's RAM: a table from page to slot
 *
 * While it is received, channels write to it; then it is sealed, and never
 * written to again.  A generation with a parent begins with the parent's
 * slots; a page that arrives gets a slot of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_GENERATION_H
#define MEMSERVER_GENERATION_H

#include "layout.h"
#include "multifd.h"
#include "slab.h"

typedef struct Generation Generation;

/*
 * @layout is copied.  @parent: NULL, or a sealed one with the same slab and
 * the same blocks.
 */
Generation *generation_new(const Layout *layout, Slab *slab,
                           Generation *parent, GError **errp);

Generation *generation_ref(Generation *g);
void generation_unref(Generation *g);

/*
 * Where the pages with data of packet @p go, in their order, for block number
 * @block.  Fills @where, MULTIFD_PAGES of them, and notes the zero pages.  The
 * caller, one of several threads, owns @cursor.
 */
bool generation_place(Generation *g, SlabCursor *cursor, unsigned block,
                      const MultifdPacket *p, void **where, GError **errp);

/*
 * Drops page @first + i of block @block for each bit i that is set: it is zero
 * here.  No thread writes any more, and it is not sealed.  @first and the
 * pages are whole words of bits, but at the end of the block.
 */
void generation_drop(Generation *g, unsigned block, uint64_t first,
                     const uint64_t *bits, uint64_t pages);

/*
 * No thread writes any more.  @inherit: pages that have not come are as in the
 * parent; else they are zero.
 */
void generation_seal(Generation *g, bool inherit);

/* NULL: a zero page.  Only of a sealed one. */
const void *generation_page(const Generation *g, unsigned block,
                            uint64_t index);

const Layout *generation_layout(const Generation *g);

/* After it is sealed: pages that have a slot; that have come with data. */
uint64_t generation_pages(const Generation *g);
uint64_t generation_own_pages(const Generation *g);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Generation, generation_unref)

#endif
