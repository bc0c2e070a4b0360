/*
 * Memory for the pages of one virtual machine
 *
 * A slot has one page.  Slots are shared by generations: each has a count of
 * the tables that it is in.  Memory comes in chunks of 2 MiB (a huge page); an
 * empty chunk goes back to the kernel.  Two budgets bound it: that of the
 * virtual machine, and that of the server.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SLAB_H
#define MEMSERVER_SLAB_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

#define SLAB_CHUNK_SLOTS 512
#define SLAB_CHUNK_SIZE ((uint64_t)SLAB_CHUNK_SLOTS * PAGE_SIZE)

/* Bits 30 and 31 of an entry in a table have a meaning (generation.h). */
#define SLAB_MAX_SLOTS (1u << 30)

/* Memory of the whole server */
typedef struct Budget {
    GMutex lock;
    uint64_t limit, used;               /* bytes */
} Budget;

typedef struct Slab Slab;

/* Slots that one thread has taken, and not used yet: a whole chunk's. */
typedef struct SlabCursor {
    uint32_t chunk;
    uint64_t left[SLAB_CHUNK_SLOTS / 64];
    bool open;
} SlabCursor;

/* @limit: bytes.  Only address space is taken.  It has one user. */
Slab *slab_new(uint64_t limit, Budget *budget, GError **errp);
Slab *slab_use(Slab *s);
void slab_leave(Slab *s);

/*
 * A slot in one table; its content is anything.  Slots of one cursor follow
 * each other where they can.  Returns false if a budget is used up.
 */
bool slab_take(Slab *s, SlabCursor *c, uint32_t *slot, GError **errp);

/* Gives back what the cursor has not used. */
void slab_close(Slab *s, SlabCursor *c);

/* One more, one less table has these slots; @count of them. */
bool slab_ref(Slab *s, const uint32_t *slots, size_t count, GError **errp);
void slab_unref(Slab *s, const uint32_t *slots, size_t count);

void *slab_page(const Slab *s, uint32_t slot);

/* Bytes of chunks that are in use. */
uint64_t slab_used(Slab *s);

#endif
