/*
 * Ranks: in which epoch each page has come to this server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <sys/mman.h>

#include "error.h"
#include "ranks.h"

/* See ranks.h */
enum { NOT_HERE, INHERITED, FIRST_EPOCH };

struct Ranks {
    Layout *layout;
    uint32_t **of;                      /* [block][page] */
};

Ranks *ranks_new(const Layout *layout, GError **errp)
{
    g_autoptr(Ranks) r = g_new0(Ranks, 1);

    r->layout = layout_copy(layout);
    r->of = g_new0(uint32_t *, layout_num_blocks(layout));
    for (unsigned i = 0; i < layout_num_blocks(layout); i++) {
        void *p = mmap(NULL, layout_pages(layout, i) * sizeof(uint32_t),
                       PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (p == MAP_FAILED) {
            ms_fail(errp, "no memory for the ranks of %" PRIu64 " pages",
                    layout_pages(layout, i));
            return NULL;
        }
        r->of[i] = p;
    }
    return g_steal_pointer(&r);
}

void ranks_free(Ranks *r)
{
    if (!r) {
        return;
    }
    for (unsigned i = 0; i < layout_num_blocks(r->layout); i++) {
        if (r->of[i]) {
            munmap(r->of[i], layout_pages(r->layout, i) * sizeof(uint32_t));
        }
    }
    g_free(r->of);
    layout_free(r->layout);
    g_free(r);
}

bool ranks_note(Ranks *r, unsigned block, const MultifdPacket *p,
                uint64_t syncs, GError **errp)
{
    if (syncs > UINT32_MAX - FIRST_EPOCH) {
        return ms_fail(errp, "there were more SYNCs than can be counted");
    }
    for (unsigned i = 0; i < p->normal + p->zero; i++) {
        __atomic_store_n(&r->of[block][p->offset[i] >> PAGE_BITS],
                         FIRST_EPOCH + syncs, __ATOMIC_RELAXED);
    }
    return true;
}

void ranks_inherit(Ranks *r, const Generation *parent)
{
    for (unsigned i = 0; i < layout_num_blocks(r->layout); i++) {
        uint64_t pages = layout_pages(r->layout, i);

        for (uint64_t at = 0; at < pages; at++) {
            if (r->of[i][at] == NOT_HERE &&
                generation_page(parent, i, at)) {
                r->of[i][at] = INHERITED;
            }
        }
    }
}

const uint32_t *ranks_block(const Ranks *r, unsigned block)
{
    return r->of[block];
}

static bool block_runs(const Ranks *r, unsigned block, RanksRuns *runs,
                       void *opaque, GError **errp)
{
    const uint32_t *of = r->of[block];
    uint64_t pages = layout_pages(r->layout, block), at = 0, first = 0;
    g_autofree PeerRun *list = g_new(PeerRun, PEER_MAX_RUNS);
    unsigned count = 0;

    while (at < pages) {
        uint64_t end = at + 1, limit = MIN(pages, at + UINT32_MAX);

        while (end < limit && of[end] == of[at]) {
            end++;
        }
        list[count++] = (PeerRun) { end - at, of[at] };
        at = end;
        if (count == PEER_MAX_RUNS || at == pages) {
            if (!runs(opaque, block, first, list, count, errp)) {
                return false;
            }
            count = 0;
            first = at;
        }
    }
    return true;
}

bool ranks_for_each(const Ranks *r, RanksRuns *runs, void *opaque,
                    GError **errp)
{
    for (unsigned i = 0; i < layout_num_blocks(r->layout); i++) {
        if (!block_runs(r, i, runs, opaque, errp)) {
            return false;
        }
    }
    return true;
}

bool page_cursor_move(PageCursor *c, const Layout *l, unsigned block,
                      uint64_t first, uint64_t count, GError **errp)
{
    if (block != c->block || block >= layout_num_blocks(l) ||
        first != c->page || count > layout_pages(l, block) - c->page) {
        return ms_fail(errp, "the other server tells of pages of block %u "
                       "from %" PRIu64 " on, which do not come next", block,
                       first);
    }
    c->page += count;
    if (c->page == layout_pages(l, block)) {
        c->block++;
        c->page = 0;
    }
    return true;
}

bool page_cursor_at_end(const PageCursor *c, const Layout *l)
{
    return c->block == layout_num_blocks(l);
}
