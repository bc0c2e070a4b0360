/*
 * What the NPB-like kernels share: random numbers, arguments, progress and
 * verification
 *
 * The kernels follow the specification of the NAS Parallel Benchmarks (Bailey
 * et al., RNR-94-007; OpenMP and classes as in NAS-95-020 and NAS-99-011), and
 * verify against the values that NASA publishes with them.  They are no
 * benchmarks of a machine: they are guests with the memory behaviour of
 * well-known programs, whose result tells whether a page was lost on the way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NPB_COMMON_H
#define NPB_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct NpbKernel {
    const char *name;
    const char *classes;            /* those that can be verified */
    /* Once: allocate, and make what stays the same over repetitions */
    void (*setup)(char class);
    /* One repetition, calling the functions below */
    void (*run)(void);
    /* Of several processes: is this true of any of them?  NULL: alone */
    bool (*any)(bool mine);
    void (*end)(void);
} NpbKernel;

int npb_main(int argc, char **argv, const NpbKernel *kernel);

/* From now on, only complain: another process speaks for all */
void npb_quiet(void);

/* End the program, which cannot do what it was asked to */
_Noreturn void npb_fail(const char *what);

/* Zeroed memory that stays until the end; ends the program without it */
void *npb_alloc(size_t num, size_t size);

/* The same for what is not needed to the end; any thread */
void *npb_scratch(size_t num, size_t size);
void npb_scratch_free(void *p);

/* Count units of work done by this thread; any thread, any time */
void npb_progress(uint64_t units);

/*
 * An iteration of the repetition has ended; called outside parallel regions.
 * @array is what the rest of the repetition depends on: half-way, --corrupt
 * zeroes a page in the middle of it.
 */
void npb_iteration(int iteration, int total, void *array, size_t size);

/* Does @got equal the published value, but for a relative error of @epsilon? */
void npb_verify(const char *what, double got, double want, double epsilon);

/*
 * The generator of the specification: x' = a x mod 2^46, as a fraction of
 * 2^46.  Products are taken modulo 2^64, which 2^46 divides.
 */
#define NPB_SEED UINT64_C(314159265)
#define NPB_A UINT64_C(1220703125)      /* 5^13 */
#define NPB_MASK ((UINT64_C(1) << 46) - 1)

static inline double npb_random(uint64_t *x)
{
    *x = *x * NPB_A & NPB_MASK;
    return *x * 0x1p-46;
}

/* State of the generator after @n numbers */
static inline uint64_t npb_random_skip(uint64_t seed, uint64_t n)
{
    uint64_t a = NPB_A;

    for (; n; n >>= 1, a *= a) {
        if (n & 1) {
            seed *= a;
        }
    }
    return seed & NPB_MASK;
}

#endif
