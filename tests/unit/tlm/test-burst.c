/*
 * Unit tests of what bursts show of the link
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "engine/burst.h"

#define MS 1000000LL
#define S  1000000000LL
#define MB 1000000ULL

/*
 * A burst of @bucket bytes at a cap of 100 MB/s, through a shaper that lets
 * @free bytes pass at once, over a link of @link bytes/s; looked at every
 * @step ns.  Returns the rate that was seen, 0 if none.
 */
static double see_burst(double bucket, double free, double link, int64_t step)
{
    const uint64_t before = 12345678;
    TlmBurst b;
    int64_t t = 7 * S;
    double went = 0;

    if (!tlm_burst_begin(&b, before, bucket, bucket * 10)) {
        g_assert_cmpuint(b.bytes, ==, 0);
        return 0;
    }
    do {
        t += step;
        g_assert_cmpint(t, <, 8 * S);
        went = MIN(free + (t - 7 * S - 5 * MS) * link / S, bucket);
        went = t < 7 * S + 5 * MS ? 0 : went;
    } while (tlm_burst_look(&b, t, before + MAX(went, 0)));
    return b.bytes ? (double)b.bytes * S / b.ns : 0;
}

static void test_burst(void)
{
    double rate;

    for (double link = 150; link <= 600; link += 75) {
        for (double free = 0; free <= 1.1; free += 0.55) {
            rate = see_burst(3.45 * MB, free * MB, link * MB, MS);
            /* it may have been over for a part of the last millisecond */
            g_assert_cmpfloat(rate, >=, 0.8 * link * MB);
            g_assert_cmpfloat(rate, <=, 1.01 * link * MB);
        }
    }
    /* all of it between two looks: fast, but not all that it may have been */
    rate = see_burst(3.45 * MB, 0, 20000.0 * MB, MS);
    g_assert_cmpfloat(rate, >, 1000 * MB);
    g_assert_cmpfloat(rate, <=, 20000.0 * MB);
    /* no burst, but what the cap lets through */
    g_assert_cmpfloat(see_burst(3.45 * MB, 0, 90 * MB, MS), ==, 0);
    /* nothing arrives any more */
    g_assert_cmpfloat(see_burst(3.45 * MB, 2 * MB, 1, MS), ==, 0);
    /* too few bytes */
    g_assert_cmpfloat(see_burst(2 * MB, 0, 300 * MB, MS), ==, 0);
    g_assert_cmpfloat(see_burst(0, 0, 300 * MB, MS), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/tlm/burst", test_burst);
    return g_test_run();
}
