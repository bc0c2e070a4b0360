/*
 * Unit tests of the TLM pacer and of bursts: simulated channels, no time
 * passes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "engine/pacer.h"

#define MS 1000000LL
#define S  1000000000LL
#define MB 1000000ULL
#define PAGE 4096
#define HEADER 1100
#define MAX_CHANNELS 16
#define MAX_PAGES 128

/*
 * Channels that write batches one after another and account for a batch
 * when it has been written, as multifd does.
 */
typedef struct {
    TlmPacer p;
    GRand *rnd;
    unsigned channels;
    double speed;               /* bytes/s that one channel can write */
    double oversleep;           /* ns, at most, that a sleeper is late */
    double zero;                /* share of the batches that are zero */
    bool stalled;               /* the link takes nothing */
    int64_t now;
    int64_t wake;
    uint64_t sent;
    uint64_t pages;
    unsigned queued[MAX_CHANNELS];
    uint64_t bytes[MAX_CHANNELS][TLM_PACER_BATCHES_IN_FLIGHT];
    int64_t done[MAX_CHANNELS];
    GArray *log;                /* of Written */
} Sim;

typedef struct {
    int64_t when;
    uint64_t sent;              /* cumulative, this write included */
} Written;

static void sim_init(Sim *s, unsigned channels, double speed)
{
    memset(s, 0, sizeof(*s));
    s->rnd = g_rand_new_with_seed(42);
    s->channels = channels;
    s->speed = speed;
    s->log = g_array_new(false, false, sizeof(Written));
    tlm_pacer_init(&s->p, 0, 0);
}

static void sim_free(Sim *s)
{
    g_rand_free(s->rnd);
    g_array_free(s->log, true);
}

static void sim_start_write(Sim *s, unsigned c)
{
    s->done[c] = s->now + MAX(s->bytes[c][0] / s->speed * S, 1);
}

/* Let @duration ns pass; work is always there */
static void sim_run(Sim *s, int64_t duration)
{
    int64_t end = s->now + duration;

    while (s->now < end) {
        int64_t next = end;
        bool room = false;
        unsigned c;

        for (c = 0; c < s->channels && !s->stalled; c++) {
            if (s->queued[c] && s->done[c] <= s->now) {
                Written w = { s->now, s->sent += s->bytes[c][0] };

                g_array_append_val(s->log, w);
                s->bytes[c][0] = s->bytes[c][1];
                if (--s->queued[c]) {
                    sim_start_write(s, c);
                }
            }
        }
        for (c = 0; c < s->channels; c++) {
            room |= s->queued[c] < TLM_PACER_BATCHES_IN_FLIGHT;
        }
        while (room && s->wake <= s->now) {
            int64_t wait = tlm_pacer_wait_ns(&s->p, s->now, s->sent);
            unsigned pages, best = 0;

            if (wait) {
                s->wake = s->now + wait +
                          g_rand_double_range(s->rnd, 0, 1) * s->oversleep;
                break;
            }
            for (c = 1; c < s->channels; c++) {
                if (s->queued[c] < s->queued[best]) {
                    best = c;
                }
            }
            if (s->queued[best] == TLM_PACER_BATCHES_IN_FLIGHT) {
                room = false;
                break;
            }
            pages = tlm_pacer_batch_pages(&s->p, PAGE, MAX_PAGES);
            g_assert_cmpuint(pages, >=, 1);
            g_assert_cmpuint(pages, <=, MAX_PAGES);
            s->pages += pages;
            s->bytes[best][s->queued[best]] = HEADER +
                (g_rand_double(s->rnd) < s->zero ? 0 : pages * PAGE);
            if (!s->queued[best]++) {
                sim_start_write(s, best);
            }
        }
        for (c = 0; c < s->channels; c++) {
            if (s->queued[c] && !s->stalled) {
                next = MIN(next, MAX(s->done[c], s->now + 1));
            }
        }
        if (room && s->wake > s->now) {
            next = MIN(next, s->wake);
        }
        s->now = next;
    }
}

/* The most bytes written within any second that starts at or after @from */
static uint64_t most_in_a_second(Sim *s, int64_t from)
{
    uint64_t most = 0;
    guint i, j = 0;

    for (i = 0; i < s->log->len; i++) {
        Written *a = &g_array_index(s->log, Written, i);
        uint64_t before = i ? (a - 1)->sent : 0;

        if (a->when < from) {
            continue;
        }
        while (j + 1 < s->log->len &&
               g_array_index(s->log, Written, j + 1).when < a->when + S) {
            j++;
        }
        most = MAX(most, g_array_index(s->log, Written, j).sent - before);
    }
    return most;
}

static void check_cap(unsigned channels, uint64_t rate, double speed,
                      double oversleep)
{
    Sim s;

    sim_init(&s, channels, speed);
    s.oversleep = oversleep;
    tlm_pacer_set_rate(&s.p, rate, channels);
    sim_run(&s, 10 * S);
    g_test_message("%u channels, cap %" PRIu64 ": %.4f on average, "
                   "%.4f in the busiest second", channels, rate,
                   s.sent / 10.0 / rate,
                   (double)most_in_a_second(&s, 0) / rate);
    g_assert_cmpfloat(most_in_a_second(&s, 0), <=, 1.05 * rate);
    g_assert_cmpfloat(s.sent / 10.0, >=, 0.98 * rate);
    sim_free(&s);
}

static void test_cap(void)
{
    static const uint64_t rates[] = {
        3 * MB, 10 * MB, 125 * MB, 300 * MB, 1250 * MB, 10000 * MB
    };
    static const unsigned channels[] = { 1, 2, 4, 16 };
    int i, j;

    for (i = 0; i < G_N_ELEMENTS(rates); i++) {
        for (j = 0; j < G_N_ELEMENTS(channels); j++) {
            double share = (double)rates[i] / channels[j];

            /* channels far faster than the cap, and just fast enough */
            check_cap(channels[j], rates[i], rates[i] * 20.0, 0);
            check_cap(channels[j], rates[i], share * 1.1, 0);
            /* a busy host: whoever sleeps wakes up late */
            check_cap(channels[j], rates[i], rates[i] * 20.0, 3 * MS);
        }
    }
    check_cap(2, 2 * MB, 1000 * MB, 0);
    check_cap(8, 2 * MB, 1000 * MB, 0);
}

/* A link slower than the cap is not slowed further */
static void test_slow_link(void)
{
    Sim s;

    sim_init(&s, 2, 10 * MB);
    tlm_pacer_set_rate(&s.p, 100 * MB, 2);
    sim_run(&s, 10 * S);
    g_assert_cmpfloat(s.sent, >=, 0.99 * 200 * MB);
    sim_free(&s);
}

/* What piled up while the link took nothing does not break the cap */
static void test_stall(void)
{
    Sim s;

    sim_init(&s, 16, 1000 * MB);
    tlm_pacer_set_rate(&s.p, 100 * MB, 16);
    sim_run(&s, 3 * S);
    s.stalled = true;
    sim_run(&s, 5 * S);
    s.stalled = false;
    sim_run(&s, 3 * S);
    g_assert_cmpfloat(most_in_a_second(&s, 0), <=, 1.05 * 100 * MB);
    g_assert_cmpfloat(s.sent, >=, 0.98 * 600 * MB);
    sim_free(&s);
}

/* Zero pages cost the bytes that they take on the wire: almost none */
static void test_zero_pages(void)
{
    Sim s;
    uint64_t covered;

    sim_init(&s, 2, 1000 * MB);
    tlm_pacer_set_rate(&s.p, 100 * MB, 2);
    s.zero = 1.0;
    sim_run(&s, 2 * S);
    covered = s.pages * PAGE;
    g_assert_cmpfloat(covered, >=, 20.0 * 100 * MB * 2);
    g_assert_cmpfloat(most_in_a_second(&s, 0), <=, 1.05 * 100 * MB);
    /* and pages with data after them find no hoard of credit */
    s.zero = 0;
    sim_run(&s, 2 * S);
    s.zero = 0.5;
    sim_run(&s, 2 * S);
    g_assert_cmpfloat(most_in_a_second(&s, 0), <=, 1.05 * 100 * MB);
    sim_free(&s);
}

static void test_rate_changes(void)
{
    Sim s;
    uint64_t before;

    sim_init(&s, 4, 1000 * MB);
    sim_run(&s, S / 10);                       /* no cap */
    g_assert_cmpfloat(s.sent, >=, 0.9 * 400 * MB);

    tlm_pacer_set_rate(&s.p, 50 * MB, 4);
    before = s.sent;
    sim_run(&s, 4 * S);
    /* what was in flight when the cap was set is not its fault */
    g_assert_cmpfloat(s.sent - before, <=, 50 * MB * 4 * 1.02 +
                      4 * 2 * (MAX_PAGES * PAGE + HEADER));
    g_assert_cmpfloat(s.sent - before, >=, 50 * MB * 4 * 0.98);

    tlm_pacer_set_rate(&s.p, 200 * MB, 4);
    before = s.sent;
    sim_run(&s, 4 * S);
    g_assert_cmpfloat(s.sent - before, <=, 200 * MB * 4 * 1.02);
    g_assert_cmpfloat(s.sent - before, >=, 200 * MB * 4 * 0.98);

    tlm_pacer_set_rate(&s.p, 5 * MB, 4);
    before = s.sent;
    sim_run(&s, 4 * S);
    /* what was written last at the old rate is paid back at the new one */
    g_assert_cmpfloat(s.sent - before, >=, 5 * MB * 4 * 0.98 -
                      200 * MB * 0.025);
    g_assert_cmpfloat(most_in_a_second(&s, s.now - 2 * S), <=, 1.05 * 5 * MB);

    tlm_pacer_set_rate(&s.p, 0, 4);
    before = s.sent;
    sim_run(&s, S / 10);
    g_assert_cmpfloat(s.sent - before, >=, 0.9 * 400 * MB);
    sim_free(&s);
}

/* Setting the same rate again and again gives no credit */
static void test_set_again(void)
{
    Sim s;
    int i;

    sim_init(&s, 2, 1000 * MB);
    for (i = 0; i < 3000; i++) {
        tlm_pacer_set_rate(&s.p, 100 * MB, 2);
        sim_run(&s, MS);
    }
    g_assert_cmpfloat(most_in_a_second(&s, 0), <=, 1.05 * 100 * MB);
    sim_free(&s);
}

static void test_clock(void)
{
    TlmPacer p;

    tlm_pacer_init(&p, 5 * S, 1000);
    tlm_pacer_set_rate(&p, 100 * MB, 2);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 5 * S, 1000), ==, 0);

    /* 10 MB of debt is 100 ms */
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 5 * S, 1000 + 10 * MB), >, 98 * MS);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 5 * S, 1000 + 10 * MB), <, 103 * MS);

    /* back: no credit from it, and no wait until the old time comes again */
    g_assert_cmpint(tlm_pacer_wait_ns(&p, S, 1000 + 10 * MB), >, 98 * MS);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, S + 50 * MS, 1000 + 10 * MB), <,
                    53 * MS);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, S + 103 * MS, 1000 + 10 * MB), ==,
                    0);

    /* far ahead: no more credit than the bucket holds */
    g_assert_cmpint(tlm_pacer_wait_ns(&p, INT64_MAX, 1000 + 10 * MB), ==, 0);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, INT64_MAX, 1000 + 15 * MB), >, 0);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, INT64_MIN, 1000 + 15 * MB), >, 0);

    /* a counter that runs backwards is no credit either */
    g_assert_cmpint(tlm_pacer_wait_ns(&p, INT64_MIN, 0), >, 0);
    /* a wait is never longer than a second */
    g_assert_cmpint(tlm_pacer_wait_ns(&p, INT64_MIN, UINT64_MAX), ==, S);
}

static void test_batch(void)
{
    TlmPacer p;

    tlm_pacer_init(&p, 0, 0);
    g_assert_cmpuint(tlm_pacer_batch_pages(&p, PAGE, 128), ==, 128);
    g_assert_cmpuint(tlm_pacer_batch_pages(&p, PAGE, 0), ==, 1);
    tlm_pacer_set_rate(&p, 1, 0);
    g_assert_cmpuint(tlm_pacer_batch_pages(&p, PAGE, 128), ==, 1);
    g_assert_cmpuint(tlm_pacer_batch_pages(&p, 0, 128), ==, 128);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 0, 0), ==, 0);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 0, 1 << 20), ==, S);
    tlm_pacer_set_rate(&p, 100 * MB, 2);
    g_assert_cmpuint(tlm_pacer_batch_pages(&p, PAGE, 1000), <, 200);
    g_assert_cmpuint(tlm_pacer_batch_pages(&p, 65536, 1000), <, 13);
    tlm_pacer_set_rate(&p, UINT64_MAX, UINT32_MAX);
    g_assert_cmpuint(tlm_pacer_batch_pages(&p, PAGE, 128), ==, 128);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 1, UINT64_MAX), >=, 0);
}

/* Whether the cap holds the channels back, or their own speed does */
static void test_held(void)
{
    static const double speeds[] = { 10, 90, 98, 110, 200, 1000 }; /* MB/s */

    for (unsigned i = 0; i < G_N_ELEMENTS(speeds); i++) {
        double share = MAX(0, 1 - 100 / speeds[i]);
        Sim s;

        sim_init(&s, 2, speeds[i] / 2 * MB);
        tlm_pacer_set_rate(&s.p, 100 * MB, 2);
        sim_run(&s, 10 * S);
        g_assert_cmpfloat(s.p.held_ns / 10.0 / S, >=, share * 0.95);
        g_assert_cmpfloat(s.p.held_ns / 10.0 / S, <=, share > 0 ? 1 : 0.04);
        sim_free(&s);
    }
}

/* What is saved up goes out at once, and costs neither the cap nor time */
static void test_save_up(void)
{
    static const uint64_t rates[] = { 3 * MB, 100 * MB, 1250 * MB };
    unsigned i, j;

    for (i = 0; i < G_N_ELEMENTS(rates); i++) {
        Sim s;

        sim_init(&s, 2, rates[i] * 20.0);
        s.oversleep = MS;
        tlm_pacer_set_rate(&s.p, rates[i], 2);
        g_assert_cmpint(tlm_pacer_fill_ns(&s.p), <=, 50 * MS);
        sim_run(&s, S);
        for (j = 0; j < 30; j++) {
            double bucket = tlm_pacer_save_up(&s.p);
            int64_t from, to;
            guint k, n = s.log->len;

            sim_run(&s, 300 * MS);
            if (j < 2) {
                continue;
            }
            /* what was in flight when it began to save up comes before */
            for (k = n - 1; k + 1 < s.log->len; k++) {
                Written *w = &g_array_index(s.log, Written, k);

                if (w[1].when - w[0].when > tlm_pacer_fill_ns(&s.p) / 2) {
                    break;
                }
            }
            g_assert_cmpuint(k + 1, <, s.log->len);
            from = g_array_index(s.log, Written, k + 1).when;
            n = k;
            while (g_array_index(s.log, Written, k).sent -
                   g_array_index(s.log, Written, n).sent < bucket) {
                g_assert_cmpuint(++k, <, s.log->len);
            }
            to = g_array_index(s.log, Written, k).when;
            /* at the speed of the channels, not at the cap's */
            g_assert_cmpint(to - from, <=, tlm_pacer_fill_ns(&s.p) / 4);
        }
        g_assert_cmpfloat(most_in_a_second(&s, 0), <=, 1.05 * rates[i]);
        g_assert_cmpfloat(s.sent, >=, 0.98 * rates[i] * s.now / S);
        sim_free(&s);
    }
}

/* No cap: nothing to save up, nothing waits */
static void test_save_up_without_cap(void)
{
    TlmPacer p;

    tlm_pacer_init(&p, 0, 0);
    g_assert_cmpfloat(tlm_pacer_save_up(&p), ==, 0);
    g_assert_cmpint(tlm_pacer_fill_ns(&p), ==, 0);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 1, 1 << 30), ==, 0);
    /* the cap is lifted while it saves up */
    tlm_pacer_set_rate(&p, 100 * MB, 2);
    tlm_pacer_wait_ns(&p, MS, 0);
    tlm_pacer_wait_ns(&p, 2 * MS, 10 * MB);
    tlm_pacer_save_up(&p);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 3 * MS, 10 * MB), >, 0);
    tlm_pacer_set_rate(&p, 0, 2);
    g_assert_cmpint(tlm_pacer_wait_ns(&p, 4 * MS, 10 * MB), ==, 0);
    g_assert_cmpint(p.held_ns, <=, 4 * MS);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/tlm/pacer/cap", test_cap);
    g_test_add_func("/tlm/pacer/slow-link", test_slow_link);
    g_test_add_func("/tlm/pacer/stall", test_stall);
    g_test_add_func("/tlm/pacer/zero-pages", test_zero_pages);
    g_test_add_func("/tlm/pacer/rate-changes", test_rate_changes);
    g_test_add_func("/tlm/pacer/set-again", test_set_again);
    g_test_add_func("/tlm/pacer/clock", test_clock);
    g_test_add_func("/tlm/pacer/batch", test_batch);
    g_test_add_func("/tlm/pacer/held", test_held);
    g_test_add_func("/tlm/pacer/save-up", test_save_up);
    g_test_add_func("/tlm/pacer/save-up-without-cap",
                    test_save_up_without_cap);
    return g_test_run();
}
