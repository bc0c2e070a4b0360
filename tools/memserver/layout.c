/*
 * What RAM a virtual machine has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "layout.h"

Layout *layout_new(void)
{
    Layout *l = g_new0(Layout, 1);

    l->subsections = g_byte_array_new();
    l->blocks = g_array_new(false, true, sizeof(LayoutBlock));
    return l;
}

void layout_free(Layout *l)
{
    if (l) {
        g_free(l->machine);
        g_byte_array_unref(l->subsections);
        g_array_unref(l->blocks);
        g_free(l);
    }
}

Layout *layout_copy(const Layout *from)
{
    Layout *l = layout_new();

    l->machine = g_strdup(from->machine);
    g_byte_array_append(l->subsections, from->subsections->data,
                        from->subsections->len);
    l->ram_id = from->ram_id;
    g_array_append_vals(l->blocks, from->blocks->data, from->blocks->len);
    l->total = from->total;
    return l;
}

int layout_find(const Layout *l, const char *name)
{
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        if (!strcmp(layout_block(l, i)->name, name)) {
            return i;
        }
    }
    return -1;
}

bool layout_takes(const Layout *l, const LayoutBlock *b, uint64_t max)
{
    return b->name[0] && b->length && b->length % PAGE_SIZE == 0 &&
        b->length <= max && layout_find(l, b->name) < 0 &&
        layout_num_blocks(l) < LAYOUT_MAX_BLOCKS;
}

bool layout_same_blocks(const Layout *a, const Layout *b)
{
    if (layout_num_blocks(a) != layout_num_blocks(b)) {
        return false;
    }
    for (unsigned i = 0; i < layout_num_blocks(a); i++) {
        const LayoutBlock *x = layout_block(a, i), *y = layout_block(b, i);

        if (strcmp(x->name, y->name) || x->length != y->length) {
            return false;
        }
    }
    return true;
}
