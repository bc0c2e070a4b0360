/*
 * Ranks and the merge, against a model
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <time.h>

#include "error.h"
#include "merge.h"
#include "ranks.h"

#define PAGES 1000                      /* not whole words */
#define PARTS 4

static Layout *layout(uint64_t pages)
{
    Layout *l = layout_new();
    LayoutBlock a = { "pc.ram", pages * PAGE_SIZE };
    LayoutBlock b = { "pc.rom", 3 * PAGE_SIZE };

    l->machine = g_strdup("pc");
    g_array_append_val(l->blocks, a);
    g_array_append_val(l->blocks, b);
    l->total = a.length + b.length;
    return l;
}

typedef struct Adding {
    Merge *m;
    const Layout *l;
    unsigned part;
    PageCursor cursor;
} Adding;

static bool add(void *opaque, unsigned block, uint64_t first,
                const PeerRun *runs, unsigned count, GError **errp)
{
    Adding *a = opaque;

    for (unsigned i = 0; i < count; i++) {
        if (!page_cursor_move(&a->cursor, a->l, block, first, runs[i].count,
                              errp) ||
            !merge_add(a->m, a->part, block, first, runs[i].count,
                       runs[i].rank, errp)) {
            return false;
        }
        first += runs[i].count;
    }
    return true;
}

static bool add_part(Merge *m, const Layout *l, const Ranks *r, unsigned part,
                     GError **errp)
{
    Adding a = { .m = m, .l = l, .part = part };
    bool ok = ranks_for_each(r, add, &a, errp);

    g_assert_true(!ok || page_cursor_at_end(&a.cursor, l));
    return ok;
}

static bool bit(const uint64_t *bits, uint64_t at)
{
    return bits[at / 64] >> at % 64 & 1;
}

static void note(Ranks *r, unsigned block, uint64_t page, uint64_t syncs)
{
    MultifdPacket p = { .zero = 1, .offset = { page * PAGE_SIZE } };

    g_assert_true(ranks_note(r, block, &p, syncs, NULL));
}

/* Pages that come to one server after the other, in any order of adding. */
static void test_model(void)
{
    g_autoptr(Layout) l = layout(PAGES);

    for (unsigned round = 0; round < 200; round++) {
        g_autoptr(Merge) m = merge_new(l, PARTS, NULL);
        Ranks *r[PARTS];
        int newest[PAGES], from = g_test_rand_int_range(0, PARTS);
        bool there[PARTS][PAGES] = { { false } };

        memset(newest, 0xff, sizeof(newest));
        for (unsigned i = 0; i < PARTS; i++) {
            r[i] = ranks_new(l, NULL);
        }
        for (unsigned syncs = 0; syncs < 6; syncs++) {
            /* In an epoch each page comes once at most. */
            for (unsigned at = 0; at < PAGES; ) {
                unsigned n = g_test_rand_int_range(1, 40);
                int part = g_test_rand_int_range(-2, PARTS);

                for (; n && at < PAGES; n--, at++) {
                    if (part >= 0) {
                        note(r[part], 0, at, syncs);
                        newest[at] = part;
                        there[part][at] = true;
                    }
                }
            }
        }
        for (unsigned i = 0; i < PARTS; i++) {
            unsigned part = (from + i) % PARTS;

            g_assert_true(add_part(m, l, r[part], part, NULL));
        }
        for (unsigned i = 0; i < PARTS; i++) {
            const uint64_t *bits = merge_superseded(m, i, 0);

            for (unsigned at = 0; at < PAGES; at++) {
                g_assert_cmpint(bit(bits, at), ==,
                                there[i][at] && newest[at] != (int)i);
            }
            g_assert_cmpuint(merge_superseded(m, i, 1)[0], ==, 0);
            ranks_free(r[i]);
        }
    }
}

static void test_tie(void)
{
    g_autoptr(Layout) l = layout(PAGES);
    g_autoptr(Merge) m = merge_new(l, 2, NULL);
    g_autoptr(Ranks) a = ranks_new(l, NULL), b = ranks_new(l, NULL);
    g_autoptr(GError) error = NULL;

    note(a, 1, 2, 5);
    note(b, 1, 2, 5);
    g_assert_true(add_part(m, l, a, 0, NULL));
    g_assert_false(add_part(m, l, b, 1, &error));
    g_assert_cmpstr(error->message, ==, "page 2 of block pc.rom has come to "
                    "part 0 and to part 1 between the same two SYNCs");
}

static void test_too_many_syncs(void)
{
    g_autoptr(Layout) l = layout(PAGES);
    g_autoptr(Ranks) r = ranks_new(l, NULL);
    MultifdPacket p = { .normal = 1 };

    g_assert_true(ranks_note(r, 0, &p, UINT32_MAX - 2, NULL));
    g_assert_cmpuint(ranks_block(r, 0)[0], ==, UINT32_MAX);
    g_assert_false(ranks_note(r, 0, &p, UINT32_MAX - 1, NULL));
}

/* All pages in order, and nothing else */
static void test_cursor(void)
{
    g_autoptr(Layout) l = layout(PAGES);
    PageCursor c = { 0 };

    g_assert_false(page_cursor_move(&c, l, 1, 0, 1, NULL));
    g_assert_false(page_cursor_move(&c, l, 0, 1, 1, NULL));
    g_assert_false(page_cursor_move(&c, l, 0, 0, PAGES + 1, NULL));
    g_assert_true(page_cursor_move(&c, l, 0, 0, PAGES - 1, NULL));
    g_assert_false(page_cursor_move(&c, l, 0, 0, 1, NULL));
    g_assert_false(page_cursor_move(&c, l, 0, PAGES - 1, 2, NULL));
    g_assert_false(page_cursor_move(&c, l, 0, PAGES - 1, UINT64_MAX, NULL));
    g_assert_true(page_cursor_move(&c, l, 0, PAGES - 1, 1, NULL));
    g_assert_false(page_cursor_at_end(&c, l));
    g_assert_true(page_cursor_move(&c, l, 1, 0, 3, NULL));
    g_assert_true(page_cursor_at_end(&c, l));
    g_assert_false(page_cursor_move(&c, l, 2, 0, 0, NULL));
}

/* "-m perf": 8 GiB at each of 4 servers, of which half came twice */
static void test_speed(void)
{
    uint64_t pages = 2 << 20;
    g_autoptr(Layout) l = layout(pages);
    g_autoptr(Merge) m = merge_new(l, PARTS, NULL);
    Ranks *r[PARTS];

    if (!g_test_perf()) {
        g_test_skip("only with -m perf");
        return;
    }
    for (unsigned i = 0; i < PARTS; i++) {
        r[i] = ranks_new(l, NULL);
    }
    for (uint64_t at = 0; at < pages; at++) {
        note(r[at / 128 % PARTS], 0, at, 0);
        note(r[at * 7 % PARTS], 0, at, 1 + at % 9);
    }
    for (unsigned i = 0; i < PARTS; i++) {
        clock_t from = clock();         /* of the CPU */
        double ms;

        g_assert_true(add_part(m, l, r[i], i, NULL));
        ms = (clock() - from) * 1000.0 / CLOCKS_PER_SEC;
        g_test_minimized_result(ms, "part %u: %.1f ms", i, ms);
        ranks_free(r[i]);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memserver/merge/model", test_model);
    g_test_add_func("/memserver/merge/tie", test_tie);
    g_test_add_func("/memserver/merge/syncs", test_too_many_syncs);
    g_test_add_func("/memserver/merge/cursor", test_cursor);
    g_test_add_func("/memserver/merge/speed", test_speed);
    return g_test_run();
}
