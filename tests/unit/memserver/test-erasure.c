/*
 * The erasure code: whatever is lost, as far as it may be, is made again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "erasure.h"
#include "parity.h"

#define PIECES (ERASURE_MAX_DATA + ERASURE_MAX_PARITY)

static uint8_t pages[PIECES][PAGE_SIZE];

static void fill(unsigned data, unsigned parity)
{
    uint8_t *from[ERASURE_MAX_DATA];
    Recipe r;

    for (unsigned i = 0; i < data; i++) {
        from[i] = pages[i];
        for (unsigned j = 0; j < PAGE_SIZE; j++) {
            pages[i][j] = g_test_rand_int();
        }
    }
    for (unsigned i = 0; i < parity; i++) {
        erasure_parity(&r, data, parity, i);
        erasure_make(&r, from, pages[data + i]);
    }
}

/* @lost: a bit for each piece; makes each part of them again. */
static void check(unsigned data, unsigned parity, uint32_t lost)
{
    uint8_t *from[ERASURE_MAX_DATA], made[PAGE_SIZE];
    unsigned have[ERASURE_MAX_DATA], n = 0;
    Recipe r;

    for (unsigned i = 0; i < data + parity && n < data; i++) {
        if (!(lost & 1u << i)) {
            from[n] = pages[i];
            have[n++] = i;
        }
    }
    g_assert_cmpuint(n, ==, data);
    for (unsigned i = 0; i < data; i++) {
        if (lost & 1u << i) {
            g_assert_true(erasure_repair(&r, data, parity, have, i));
            erasure_make(&r, from, made);
            g_assert_cmpmem(made, PAGE_SIZE, pages[i], PAGE_SIZE);
        }
    }
}

/* Each loss that is possible, of small sets */
static void test_all(void)
{
    for (unsigned data = 2; data <= 6; data++) {
        for (unsigned parity = 1; parity < MIN(data, 4); parity++) {
            fill(data, parity);
            for (uint32_t lost = 1; lost < 1u << (data + parity); lost++) {
                if (__builtin_popcount(lost) <= parity) {
                    check(data, parity, lost);
                }
            }
        }
    }
}

/* The largest, at random */
static void test_limit(void)
{
    unsigned data = ERASURE_MAX_DATA, parity = ERASURE_MAX_PARITY;

    fill(data, parity);
    for (unsigned n = 0; n < 1000; n++) {
        uint32_t lost = 0;

        while (__builtin_popcount(lost) < parity) {
            lost |= 1u << g_test_rand_int_range(0, data + parity);
        }
        check(data, parity, lost);
    }
}

static void test_xor(void)
{
    fill(3, 1);
    for (unsigned i = 0; i < PAGE_SIZE; i++) {
        g_assert_cmpuint(pages[3][i], ==,
                         pages[0][i] ^ pages[1][i] ^ pages[2][i]);
    }
}

static void test_possible(void)
{
    g_assert_true(erasure_possible(2, 1));
    g_assert_true(erasure_possible(ERASURE_MAX_DATA, ERASURE_MAX_PARITY));
    g_assert_false(erasure_possible(1, 1));
    g_assert_false(erasure_possible(2, 2));
    g_assert_false(erasure_possible(3, 0));
    g_assert_false(erasure_possible(ERASURE_MAX_DATA + 1, 1));
    g_assert_false(erasure_possible(ERASURE_MAX_DATA,
                                    ERASURE_MAX_PARITY + 1));
}

/* With the same piece twice there is no way back. */
static void test_twice(void)
{
    unsigned have[] = { 1, 1, 3 };
    Recipe r;

    g_assert_false(erasure_repair(&r, 3, 1, have, 0));
}

/* Two blocks; part i has page i of each, and its checksums. */
static Parity *some_parity(void)
{
    LayoutBlock blocks[] = { { "pc.ram", 70 * 4096 }, { "rom", 2 * 4096 } };
    g_autoptr(Layout) l = layout_new();
    Parity *p = parity_alloc();

    l->machine = g_strdup("pc");
    for (unsigned i = 0; i < 2; i++) {
        l->total += blocks[i].length;
        g_array_append_val(l->blocks, blocks[i]);
    }
    p->data = 2;
    p->parity = 1;
    p->part_name = g_strdup("one");
    p->state = g_byte_array_new();
    g_byte_array_append(p->state, (const void *)"state", 5);
    for (unsigned i = 0; i < p->data; i++) {
        p->from[i] = g_strdup_printf("tcp:%u:1", i);
        p->parts[i].map = page_map_new(l);
        page_map_add(p->parts[i].map, 0, 64 + i);
        page_map_add(p->parts[i].map, 1, i);
        p->parts[i].sums = g_new0(uint64_t, 3);
        p->parts[i].sums[0] = 1ull << 63;
        p->parts[i].sums[1] = i;
    }
    return p;
}

/* There and back; whatever is cut off or changed is an error, or harmless. */
static void test_table(void)
{
    Parity *p = some_parity(), *q;
    g_autoptr(GByteArray) table = parity_table(p);

    q = parity_from_table(table->data, table->len, NULL);
    g_assert_nonnull(q);
    g_assert_cmpuint(q->data, ==, 2);
    g_assert_cmpstr(q->part_name, ==, "one");
    g_assert_cmpuint(q->state->len, ==, 5);
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpstr(q->from[i], ==, p->from[i]);
        g_assert_cmpuint(q->parts[i].map->pages, ==, 2);
        g_assert_true(layout_same_blocks(q->parts[i].map->layout,
                                         p->parts[i].map->layout));
        g_assert_cmpuint(q->parts[i].map->bits[0][1], ==, 1ull << i);
        g_assert_cmpmem(q->parts[i].sums, 16, p->parts[i].sums, 16);
    }
    parity_unref(q);
    parity_unref(p);
    for (unsigned size = 0; size < table->len; size++) {
        /* A copy, so that a read behind its end is seen. */
        g_autofree uint8_t *copy = g_memdup2(table->data, size);

        g_assert_null(parity_from_table(copy, size, NULL));
    }
    for (unsigned i = 0; i < table->len * 8; i++) {
        g_autofree uint8_t *copy = g_memdup2(table->data, table->len);

        copy[i / 8] ^= 1 << i % 8;
        parity_unref(parity_from_table(copy, table->len, NULL));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/erasure/all", test_all);
    g_test_add_func("/erasure/limit", test_limit);
    g_test_add_func("/erasure/xor", test_xor);
    g_test_add_func("/erasure/possible", test_possible);
    g_test_add_func("/erasure/twice", test_twice);
    g_test_add_func("/memserver/erasure/table", test_table);
    return g_test_run();
}
