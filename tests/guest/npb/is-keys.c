/*
 * The keys of IS, and where they must end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdio.h>

#include "is-keys.h"

static const IsClass classes[] = {
    { 'S', 16, 11, {
        { 48427, 0, 1, 0 }, { 17148, 18, 1, 0 }, { 23627, 346, 1, 0 },
        { 62548, 64917, -1, 0 }, { 4431, 65463, -1, 0 } } },
    { 'W', 20, 16, {
        { 357773, 1249, 1, -2 }, { 934767, 11698, 1, -2 },
        { 875723, 1039987, -1, 0 }, { 898999, 1043896, -1, 0 },
        { 404505, 1048018, -1, 0 } } },
    { 'A', 23, 19, {
        { 2112377, 104, 1, -1 }, { 662041, 17523, 1, -1 },
        { 5336171, 123928, 1, -1 }, { 3642833, 8288932, -1, -1 },
        { 4250760, 8388264, -1, -1 } } },
    { 'B', 25, 21, {
        { 41869, 33422937, -1, 0 }, { 812306, 10244, 1, 0 },
        { 5102857, 59149, 1, 0 }, { 18232239, 33135281, -1, 0 },
        { 26860214, 99, 1, 0 } } },
    { 'C', 27, 23, {
        { 44172927, 61147, 1, 0 }, { 72999161, 882988, 1, 0 },
        { 74326391, 266290, 1, 0 }, { 129606274, 133997595, -1, 0 },
        { 21736814, 133525895, -1, 0 } } },
};

const IsClass *is_class(char name)
{
    const IsClass *class = classes;

    while (class->name != name) {
        class++;
    }
    return class;
}

/* Each key is the mean of four random numbers, scaled to the largest key */
void is_make_keys(const IsClass *class, int32_t *keys, int64_t first,
                  int64_t num)
{
    int quarter = (1 << class->log_max) / 4;
    int64_t chunk, i;

    #pragma omp parallel for private(i)
    for (chunk = 0; chunk < num; chunk += IS_CHUNK) {
        uint64_t x = npb_random_skip(NPB_SEED, 4 * (first + chunk));

        for (i = chunk; i < chunk + IS_CHUNK; i++) {
            double sum = npb_random(&x);

            sum += npb_random(&x);
            sum += npb_random(&x);
            sum += npb_random(&x);
            keys[i] = sum * quarter;
        }
        npb_progress(IS_MAKE * IS_CHUNK);
    }
}

void is_verify_rank(const IsClass *class, int test, int iteration,
                    int64_t rank)
{
    char what[40];

    snprintf(what, sizeof(what), "rank of key %d in iteration %d", test,
             iteration);
    npb_verify(what, rank, class->test[test].rank + class->test[test].sign *
               (iteration + class->test[test].shift), 0);
}
