/*
 * NPB-like kernels: arguments, progress and verification
 *
 * Lines on stdout are those of the Linux test guest (tests/guest/linux):
 *
 *   TLM-GUEST-START npb=NAME class=C threads=N mib=N
 *   TLM-GUEST beat=N ms=CLOCK passes=ITERATIONS pages=UNITS scans=VERIFIED
 *   NAME C VERIFIED run=N iterations=N seconds=S units=N
 *   NAME C FAILED run=N ...
 *   TLM-GUEST-CORRUPT NAME C run=N: WHAT got=X want=Y
 *
 * and the page that TLM_COUNTER names (tests/guest/linux/counter.h) has the
 * same figures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "../linux/counter.h"

#define MAX_THREADS 256
#define PAGE_SIZE 4096

/* Where the host looks, and asks to stop; or nobody does */
static TlmCounter own_counter;
static volatile TlmCounter *counter = &own_counter;

static const NpbKernel *kernel;
static char class;
static long beat_ms;
static bool corrupt, quiet;
static size_t allocated;
static _Atomic uint64_t iterations;
static int run_iterations, checks;
static char mismatch[160];

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* One write() a line, so that lines of threads and of a kernel do not mix */
__attribute__((format(printf, 1, 2)))
static void say(const char *fmt, ...)
{
    char line[256];
    va_list ap;
    int len;

    va_start(ap, fmt);
    len = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (write(STDOUT_FILENO, line, len) != len) {
        /* nobody to tell */
        return;
    }
}

_Noreturn void npb_fail(const char *what)
{
    say("TLM-GUEST-FAILED npb: %s\n", what);
    exit(2);
}

void npb_quiet(void)
{
    quiet = true;
}

void *npb_alloc(size_t num, size_t size)
{
    void *p = mmap(NULL, num * size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        npb_fail("no memory");
    }
    allocated += num * size;
    return p;
}

void *npb_scratch(size_t num, size_t size)
{
    void *p = calloc(num, size);

    if (!p) {
        npb_fail("no memory");
    }
    return p;
}

void npb_scratch_free(void *p)
{
    free(p);
}

void npb_progress(uint64_t units)
{
    tlm_counter_add(&counter->work, units);
}

static void *heartbeat(void *opaque)
{
    int64_t next = now_ns(), now;
    uint64_t beat;

    for (beat = 1; ; beat++) {
        struct timespec ts;

        next += beat_ms * 1000000;
        now = now_ns();
        if (next < now) {
            next = now;
        }
        ts.tv_sec = next / 1000000000;
        ts.tv_nsec = next % 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
        say("TLM-GUEST beat=%" PRIu64 " ms=%" PRId64 " passes=%" PRIu64
            " pages=%" PRIu64 " scans=%" PRIu64 "\n", beat,
            now_ns() / 1000000, atomic_load(&iterations),
            counter->work, counter->runs);
    }
    return NULL;
}

void npb_iteration(int iteration, int total, void *array, size_t size)
{
    atomic_fetch_add(&iterations, 1);
    run_iterations++;
    counter->state = TLM_READY;     /* all memory has been written */
    if (corrupt && iteration == (total + 1) / 2) {
        size_t len = size < PAGE_SIZE ? size : PAGE_SIZE;

        memset((char *)array + (size - len) / 2 / PAGE_SIZE * PAGE_SIZE, 0,
               len);
    }
}

void npb_verify(const char *what, double got, double want, double epsilon)
{
    checks++;
    /* written so that NaN does not pass */
    if (!(fabs(got - want) <= epsilon * fabs(want)) && !mismatch[0]) {
        snprintf(mismatch, sizeof(mismatch), "%s got=%.13e want=%.13e",
                 what, got, want);
    }
}

static bool any(bool mine)
{
    return kernel->any ? kernel->any(mine) : mine;
}

static bool repetition(uint64_t number)
{
    uint64_t units = counter->work;
    int64_t start = now_ns();
    bool ok, all_ok;

    run_iterations = checks = 0;
    mismatch[0] = 0;
    kernel->run();
    ok = checks && !mismatch[0];
    all_ok = !any(!ok);
    if (!quiet) {
        say("%s %c %s run=%" PRIu64 " iterations=%d seconds=%.3f units=%"
            PRIu64 "\n", kernel->name, class, all_ok ? "VERIFIED" : "FAILED",
            number, run_iterations, (now_ns() - start) / 1e9,
            counter->work - units);
    }
    if (all_ok) {
        tlm_counter_add(&counter->runs, 1);
    }
    if (!ok) {
        say("TLM-GUEST-CORRUPT %s %c run=%" PRIu64 ": %s\n", kernel->name,
            class, number, checks ? mismatch : "nothing was verified");
    }
    return all_ok;
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: npb-KERNEL CLASS [--repeat N (1; 0: for ever)]"
            " [--seconds S] [--threads N]\n"
            "       [--beat MS] [--corrupt]\n%s has the classes %s\n",
            kernel->name, kernel->classes);
    exit(2);
}

static uint64_t number(const char *arg, uint64_t max)
{
    char *end;
    uint64_t n = strtoull(arg, &end, 10);

    if (*arg < '0' || *arg > '9' || *end || n > max) {
        usage();
    }
    return n;
}

int npb_main(int argc, char **argv, const NpbKernel *k)
{
    static const struct option options[] = {
        { "repeat", required_argument, NULL, 'r' },
        { "seconds", required_argument, NULL, 's' },
        { "threads", required_argument, NULL, 't' },
        { "beat", required_argument, NULL, 'b' },
        { "corrupt", no_argument, NULL, 'c' },
        { NULL, 0, NULL, 0 },
    };
    uint64_t repeat = 1, seconds = 0, threads = 0, run;
    int64_t start = now_ns();
    pthread_t thread;
    bool ok;
    int c;

    kernel = k;
    /*
     * Threads that wait must not spin: guests have more of them than the host
     * has CPUs.  libgomp has read its environment already, so start again.
     */
    if (!getenv("OMP_WAIT_POLICY")) {
        setenv("OMP_WAIT_POLICY", "passive", 1);
        execv("/proc/self/exe", argv);
    }
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'r':
            repeat = number(optarg, UINT64_MAX);
            break;
        case 's':
            seconds = number(optarg, 1000000);
            repeat = 0;
            break;
        case 't':
            threads = number(optarg, MAX_THREADS);
            break;
        case 'b':
            beat_ms = number(optarg, 1000000);
            break;
        case 'c':
            corrupt = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc - 1 || !argv[optind][0] || argv[optind][1] ||
        !strchr(kernel->classes, argv[optind][0])) {
        usage();
    }
    class = argv[optind][0];
    if (!threads) {
        threads = omp_get_max_threads();
    }
    threads = threads < MAX_THREADS ? threads : MAX_THREADS;
    omp_set_dynamic(0);
    omp_set_num_threads(threads);

    if (getenv("TLM_COUNTER")) {
        counter = tlm_counter_open();
        if (!counter) {
            counter = &own_counter;
            npb_fail("cannot map TLM_COUNTER");
        }
    }
    if (beat_ms && pthread_create(&thread, NULL, heartbeat, NULL)) {
        npb_fail("cannot start a thread");
    }
    kernel->setup(class);
    if (!quiet) {
        say("TLM-GUEST-START npb=%s class=%c threads=%" PRIu64 " mib=%zu\n",
            kernel->name, class, threads, allocated >> 20);
    }
    run = 0;
    do {
        run++;
        ok = repetition(run);
    } while (ok && !any(counter->stop || run == repeat ||
                        (seconds &&
                         now_ns() - start >= (int64_t)seconds * 1000000000)));
    if (kernel->end) {
        kernel->end();
    }
    return ok ? 0 : 1;
}
