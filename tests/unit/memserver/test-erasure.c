/*
 * The erasure code: whatever is lost, as far as it may be, is made again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "erasure.h"

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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/erasure/all", test_all);
    g_test_add_func("/erasure/limit", test_limit);
    g_test_add_func("/erasure/xor", test_xor);
    g_test_add_func("/erasure/possible", test_possible);
    g_test_add_func("/erasure/twice", test_twice);
    return g_test_run();
}
