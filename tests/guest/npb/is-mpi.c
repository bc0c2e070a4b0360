/*
 * IS over several processes, by MPI: rank keys that are spread over the guests
 *
 * Each process has a share of the keys; in each iteration all processes send
 * each other the keys of the buckets that the other one ranks.  So all keys
 * cross the network between the guests, ten times.
 *
 * Built where it is used, against the MPI library that is there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <mpi.h>
#include <string.h>

#include "is-keys.h"
#include "processes.h"

static const IsClass *class;
static int me, processes, bucket_shift, max_key;
static int64_t first_key, num_keys;     /* my share */
static int32_t *keys, *bucketed;
static int32_t *received;               /* the keys of my buckets */
static int64_t num_received;
static int32_t *less;                   /* how many keys are smaller, in all */
static int64_t total[IS_BUCKETS];       /* keys of each bucket, in all */
static int first_bucket[1024 + 1];      /* of each process */
static int32_t original[2 * IS_ITERATIONS + 1];

static int64_t share(int process)
{
    int64_t chunks = (INT64_C(1) << class->log_keys) / IS_CHUNK;

    return chunks * process / processes * IS_CHUNK;
}

static void setup(char name)
{
    int64_t all;

    processes_start(&me, &processes);
    class = is_class(name);
    all = INT64_C(1) << class->log_keys;
    if (processes > 1024 || processes > all / IS_CHUNK) {
        npb_fail("too many processes");
    }
    max_key = 1 << class->log_max;
    bucket_shift = class->log_max - IS_LOG_BUCKETS;
    first_key = share(me);
    num_keys = share(me + 1) - first_key;
    keys = npb_alloc(num_keys, sizeof(*keys));
    bucketed = npb_alloc(num_keys, sizeof(*bucketed));
    /* usually a share and a bucket; what is not used takes no memory */
    received = npb_alloc(all, sizeof(*received));
    less = npb_alloc(max_key, sizeof(*less));
    is_make_keys(class, keys, first_key, num_keys);
    memcpy(original, keys, sizeof(original));
}

/* Sort my keys by bucket; place[b] is where bucket b ends, then */
static void by_bucket(int64_t *place)
{
    int64_t count[IS_BUCKETS] = { 0 }, sum = 0, i;
    int b;

    for (i = 0; i < num_keys; i++) {
        count[keys[i] >> bucket_shift]++;
        if (i % IS_CHUNK == IS_CHUNK - 1) {
            npb_progress(IS_CHUNK);
        }
    }
    MPI_Allreduce(count, total, IS_BUCKETS, MPI_INT64_T, MPI_SUM,
                  MPI_COMM_WORLD);
    for (b = 0; b < IS_BUCKETS; b++) {
        place[b] = sum;
        sum += count[b];
    }
    for (i = 0; i < num_keys; i++) {
        bucketed[place[keys[i] >> bucket_shift]++] = keys[i];
        if (i % IS_CHUNK == IS_CHUNK - 1) {
            npb_progress(IS_COPY * IS_CHUNK);
        }
    }
}

/* Each process ranks buckets in a row that have about its share of the keys */
static void divide_buckets(void)
{
    int64_t sum = 0;
    int b, p = 0;

    for (b = 0; b < IS_BUCKETS; b++) {
        while (p < processes && sum >= share(p)) {
            first_bucket[p++] = b;
        }
        sum += total[b];
    }
    while (p <= processes) {
        first_bucket[p++] = IS_BUCKETS;
    }
}

/* Send @num keys to @to while receiving @expected keys from @from */
static void exchange(const int32_t *out, int64_t num, int to, int32_t *in,
                     int64_t expected, int from)
{
    int64_t sent = 0, got = 0;

    while (sent < num || got < expected) {
        int out_len = num - sent < IS_CHUNK ? num - sent : IS_CHUNK;
        int in_len = expected - got < IS_CHUNK ? expected - got : IS_CHUNK;

        MPI_Sendrecv(out + sent, out_len, MPI_INT32_T,
                     out_len ? to : MPI_PROC_NULL, 0,
                     in + got, in_len, MPI_INT32_T,
                     in_len ? from : MPI_PROC_NULL, 0,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        sent += out_len;
        got += in_len;
        npb_progress(IS_COPY * (out_len + in_len));
    }
}

static void exchange_all(const int64_t *place)
{
    int64_t start[processes + 1], num[processes], expected[processes];
    int p, step;

    for (p = 0; p <= processes; p++) {
        start[p] = first_bucket[p] ? place[first_bucket[p] - 1] : 0;
        if (p) {
            num[p - 1] = start[p] - start[p - 1];
        }
    }
    MPI_Alltoall(num, 1, MPI_INT64_T, expected, 1, MPI_INT64_T,
                 MPI_COMM_WORLD);
    memcpy(received, bucketed + start[me], num[me] * sizeof(*received));
    num_received = num[me];
    for (step = 1; step < processes; step++) {
        int to = (me + step) % processes;
        int from = (me + processes - step) % processes;

        exchange(bucketed + start[to], num[to], to, received + num_received,
                 expected[from], from);
        num_received += expected[from];
    }
}

/* less[] for the keys of my buckets; returns the first one's */
static int64_t rank_received(void)
{
    int begin = first_bucket[me] << bucket_shift;
    int end = first_bucket[me + 1] << bucket_shift;
    int64_t before = 0, sum, i;
    int b, k;

    for (b = 0; b < first_bucket[me]; b++) {
        before += total[b];
    }
    memset(less + begin, 0, (end - begin) * sizeof(*less));
    for (i = 0; i < num_received; i++) {
        less[received[i]]++;
        if (i % IS_CHUNK == IS_CHUNK - 1) {
            npb_progress(IS_CHUNK);
        }
    }
    sum = before;
    for (k = begin; k < end; k++) {
        int n = less[k];

        less[k] = sum;
        sum += n;
    }
    return before;
}

static void rank_keys(int iteration)
{
    int32_t mine[IS_TESTS], probe[IS_TESTS];
    int64_t place[IS_BUCKETS];
    int i;

    if (!me) {
        keys[iteration] = iteration;
        keys[iteration + IS_ITERATIONS] = max_key - iteration;
    }
    for (i = 0; i < IS_TESTS; i++) {
        int64_t index = class->test[i].index - first_key;

        mine[i] = index >= 0 && index < num_keys ? keys[index] : 0;
    }
    MPI_Allreduce(mine, probe, IS_TESTS, MPI_INT32_T, MPI_SUM,
                  MPI_COMM_WORLD);
    by_bucket(place);
    divide_buckets();
    exchange_all(place);
    rank_received();
    for (i = 0; i < IS_TESTS; i++) {
        int bucket = probe[i] >> bucket_shift;

        if (bucket >= first_bucket[me] && bucket < first_bucket[me + 1]) {
            is_verify_rank(class, i, iteration, less[probe[i]]);
        }
    }
}

/*
 * The ranks sort the keys I have received, no key is lost on the way, and my
 * keys follow those of the process before.
 */
static void verify_order(void)
{
    int64_t sum = 0, all, before = rank_received(), disorder = 0, i;
    int32_t *sorted = npb_scratch(num_received + 1, sizeof(*sorted));

    for (i = 0; i < num_received; i++) {
        sorted[less[received[i]]++ - before] = received[i];
        sum -= received[i];
        if (i % IS_CHUNK == 0) {
            npb_progress(IS_SORT * IS_CHUNK);
        }
    }
    for (i = 1; i < num_received; i++) {
        disorder += sorted[i - 1] > sorted[i];
        if (i % IS_CHUNK == 0) {
            npb_progress(IS_CHECK * IS_CHUNK);
        }
    }
    if (num_received) {
        disorder += sorted[0] >> bucket_shift < first_bucket[me];
        disorder += sorted[num_received - 1] >> bucket_shift >=
                    first_bucket[me + 1];
    }
    npb_scratch_free(sorted);
    for (i = 0; i < num_keys; i++) {
        sum += keys[i];
    }
    MPI_Allreduce(&sum, &all, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    npb_verify("keys out of order", disorder, 0, 0);
    npb_verify("sum of keys less that of sorted ones", all, 0, 0);
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

static const NpbKernel kernel = {
    "IS", "SWABC", setup, run, processes_any, processes_end,
};

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
