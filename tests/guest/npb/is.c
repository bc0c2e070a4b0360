/*
 * IS: rank integer keys, ten times (RNR-94-007, section 2.6)
 *
 * A bucket sort: the keys of each iteration are counted and copied by their
 * upper bits, then each bucket is ranked by itself.  So every iteration
 * rewrites a copy of all keys, and the rank of every possible key.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <omp.h>
#include <string.h>

#include "is-keys.h"

static const IsClass *class;
static int64_t num_keys;
static int max_key, bucket_shift, threads;
static int32_t *keys;           /* as generated */
static int32_t *bucketed;       /* the same, bucket after bucket */
static int32_t *sorted;
static int32_t *less;           /* for each key: how many keys are smaller */
static int64_t (*place)[IS_BUCKETS];     /* of each thread */
static int64_t bucket_start[IS_BUCKETS + 1];
static int32_t original[2 * IS_ITERATIONS + 1];    /* first keys, unmodified */

static int64_t minimum(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void setup(char name)
{
    class = is_class(name);
    num_keys = INT64_C(1) << class->log_keys;
    max_key = 1 << class->log_max;
    bucket_shift = class->log_max - IS_LOG_BUCKETS;
    threads = omp_get_max_threads();
    keys = npb_alloc(num_keys, sizeof(*keys));
    bucketed = npb_alloc(num_keys, sizeof(*bucketed));
    sorted = npb_alloc(num_keys, sizeof(*sorted));
    less = npb_alloc(max_key, sizeof(*less));
    place = npb_alloc(threads, sizeof(*place));

    is_make_keys(class, keys, 0, num_keys);
    memcpy(original, keys, sizeof(original));
}

/* One thread's share of the keys: count them, or move them, by bucket */
static void by_bucket(int64_t *my_place, bool move)
{
    int64_t first = num_keys * omp_get_thread_num() / threads;
    int64_t last = num_keys * (omp_get_thread_num() + 1) / threads;
    int64_t i, end;

    for (i = first; i < last; ) {
        int64_t begin = i;

        end = minimum(i + IS_CHUNK, last);
        if (move) {
            for (; i < end; i++) {
                bucketed[my_place[keys[i] >> bucket_shift]++] = keys[i];
            }
        } else {
            for (; i < end; i++) {
                my_place[keys[i] >> bucket_shift]++;
            }
        }
        npb_progress((end - begin) * (move ? IS_COPY : 1));
    }
}

/* From each thread's counts, where its keys of each bucket go */
static void make_places(void)
{
    int64_t sum = 0, n;
    int b, t;

    for (b = 0; b < IS_BUCKETS; b++) {
        bucket_start[b] = sum;
        for (t = 0; t < threads; t++) {
            n = place[t][b];
            place[t][b] = sum;
            sum += n;
        }
    }
    bucket_start[IS_BUCKETS] = sum;
}

static void rank_bucket(int bucket)
{
    int32_t *from = less + ((int64_t)bucket << bucket_shift);
    int32_t sum = bucket_start[bucket], n;
    int64_t i;
    int k;

    memset(from, 0, sizeof(*from) << bucket_shift);
    for (i = bucket_start[bucket]; i < bucket_start[bucket + 1]; i++) {
        less[bucketed[i]]++;
    }
    for (k = 0; k < 1 << bucket_shift; k++) {
        n = from[k];
        from[k] = sum;
        sum += n;
    }
    npb_progress(bucket_start[bucket + 1] - bucket_start[bucket]);
}

static void rank_keys(int iteration)
{
    int32_t probe[IS_TESTS];
    int b, i;

    keys[iteration] = iteration;
    keys[iteration + IS_ITERATIONS] = max_key - iteration;
    for (i = 0; i < IS_TESTS; i++) {
        probe[i] = keys[class->test[i].index];
    }
    memset(place, 0, threads * sizeof(*place));

    #pragma omp parallel num_threads(threads)
    {
        by_bucket(place[omp_get_thread_num()], false);
        #pragma omp barrier
        #pragma omp single
        make_places();
        by_bucket(place[omp_get_thread_num()], true);
        #pragma omp barrier
        #pragma omp for schedule(dynamic)
        for (b = 0; b < IS_BUCKETS; b++) {
            rank_bucket(b);
        }
    }

    for (i = 0; i < IS_TESTS; i++) {
        is_verify_rank(class, i, iteration, less[probe[i]]);
    }
}

/* The ranks sort the keys, and none is lost */
static void verify_order(void)
{
    int64_t chunk, i, disorder = 0, sum = 0;
    int b;

    #pragma omp parallel for schedule(dynamic) private(i)
    for (b = 0; b < IS_BUCKETS; b++) {
        for (i = bucket_start[b]; i < bucket_start[b + 1]; i++) {
            sorted[less[bucketed[i]]++] = bucketed[i];
        }
        npb_progress(IS_SORT * (bucket_start[b + 1] - bucket_start[b]));
    }
    #pragma omp parallel for private(i) reduction(+: disorder, sum)
    for (chunk = 0; chunk < num_keys; chunk += IS_CHUNK) {
        for (i = chunk; i < chunk + IS_CHUNK; i++) {
            disorder += i && sorted[i - 1] > sorted[i];
            sum += (int64_t)keys[i] - sorted[i];
        }
        npb_progress(IS_CHECK * IS_CHUNK);
    }
    npb_verify("keys out of order", disorder, 0, 0);
    npb_verify("sum of keys less that of sorted ones", sum, 0, 0);
}

static void run(void)
{
    int i;

    memcpy(keys, original, sizeof(original));
    for (i = 1; i <= IS_ITERATIONS; i++) {
        rank_keys(i);
        npb_iteration(i, IS_ITERATIONS, keys, num_keys * sizeof(*keys));
    }
    verify_order();
}

static const NpbKernel kernel = { "IS", "SWABC", setup, run };

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
