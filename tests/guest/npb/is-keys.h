/*
 * The keys of IS, and where they must end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NPB_IS_KEYS_H
#define NPB_IS_KEYS_H

#include "common.h"

#define IS_ITERATIONS 10
#define IS_TESTS 5
#define IS_LOG_BUCKETS 9
#define IS_BUCKETS (1 << IS_LOG_BUCKETS)
#define IS_CHUNK 4096           /* keys between two reports of progress */

/*
 * Units of work of a key, so that all of them take about the same time (under
 * TCG, some 6 ns): to make it, to copy it to its bucket, to sort it and to look
 * at it in order; to count it is one.
 */
#define IS_MAKE 14
#define IS_COPY 10
#define IS_SORT 4
#define IS_CHECK 6

/*
 * Published with the benchmark: in each iteration, the key at @index has rank
 * @rank + @sign * (iteration + @shift).
 */
typedef struct IsClass {
    char name;
    int log_keys, log_max;
    struct {
        int64_t index, rank;
        int sign, shift;
    } test[IS_TESTS];
} IsClass;

const IsClass *is_class(char name);

/* Keys @first to @first + @num, multiples of IS_CHUNK */
void is_make_keys(const IsClass *class, int32_t *keys, int64_t first,
                  int64_t num);

/* @rank is how many keys are smaller than that of @test */
void is_verify_rank(const IsClass *class, int test, int iteration,
                    int64_t rank);

#endif
