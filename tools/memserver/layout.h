/*
 * What RAM a virtual machine has, as the main stream tells it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_LAYOUT_H
#define MEMSERVER_LAYOUT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define PAGE_BITS 12
#define PAGE_SIZE (1u << PAGE_BITS)

/* QEMU's limit: a length in one byte. */
#define BLOCK_NAME_MAX 255

/* More than any machine has; QEMU has no limit of its own. */
#define LAYOUT_MAX_BLOCKS 1024

typedef struct LayoutBlock {
    char name[BLOCK_NAME_MAX + 1];
    uint64_t length;                    /* bytes, whole pages */
} LayoutBlock;

typedef struct Layout {
    char *machine;                      /* printable ASCII */
    GByteArray *subsections;            /* of the configuration, as sent */
    uint32_t ram_id;                    /* section id of "ram" */
    GArray *blocks;                     /* LayoutBlock */
    uint64_t total;                     /* bytes of all blocks */
} Layout;

Layout *layout_new(void);
void layout_free(Layout *l);
Layout *layout_copy(const Layout *l);

static inline unsigned layout_num_blocks(const Layout *l)
{
    return l->blocks->len;
}

static inline const LayoutBlock *layout_block(const Layout *l, unsigned i)
{
    return &g_array_index(l->blocks, LayoutBlock, i);
}

static inline uint64_t layout_pages(const Layout *l, unsigned i)
{
    return layout_block(l, i)->length >> PAGE_BITS;
}

/* The number of the block called @name, or -1. */
int layout_find(const Layout *l, const char *name);

/* Whether @b can be one more of its blocks, of at most @max bytes. */
bool layout_takes(const Layout *l, const LayoutBlock *b, uint64_t max);

/* Same blocks, in the same order, of the same size? */
bool layout_same_blocks(const Layout *a, const Layout *b);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Layout, layout_free)

#endif
