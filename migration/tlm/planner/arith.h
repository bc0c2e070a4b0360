/*
 * TLM planner: arithmetic on quantities that may be measured wrongly
 *
 * Units in here: seconds and bytes, as double.  "Guest bytes" are RAM;
 * "wire bytes" are what they become on the link.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_ARITH_H
#define TLM_PLANNER_ARITH_H

#include <math.h>

/* The interface counts in ms and ns */
#define MS_PER_S        1e3
#define NS_PER_S        1e9

/*
 * No time (s), size or rate is larger: 30 million years, or a million times
 * what the fastest link carries.  Ten thousand times as much would not fit
 * into a uint64_t of milliseconds; 1e9 would cut off real sizes.
 */
#define FOREVER         1e15

/* Added before a conversion to an integer, to round times to the nearest */
#define ROUNDING        0.5

static inline double sane(double x, double low, double high)
{
    if (!(x > low)) {
        return low;             /* NaN as well */
    }
    return x < high ? x : high;
}

/* @a / @b, and FOREVER at most */
static inline double ratio(double a, double b)
{
    if (a <= 0) {
        return 0;
    }
    if (b <= 0 || a / b > FOREVER) {
        return FOREVER;
    }
    return a / b;
}

/* Move @avg towards @x, seen for @dt; @tau: how far back @avg looks */
static inline void smooth(double *avg, double x, double dt, double tau)
{
    *avg += (x - *avg) * sane(dt / (dt + tau), 0, 1);
}

static inline uint64_t to_ms(double s)
{
    return s >= FOREVER ? 0 : sane(s, 0, FOREVER) * MS_PER_S + ROUNDING;
}

#endif
