/*
 * tlm-sim: what must hold for guests of random and of known behaviour
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "tlm-sim-model.h"
#include "tlm-sim-print.h"
#include "tlm-sim-suite.h"

/* As options, to run it again */
static void print_config(const SimConfig *c)
{
    printf("#   --mode %s --model %s --ram %.0f --ws %.0f --where %.4f "
           "--zero %.4f%s --rate %.0f --link %.0f --compression %.1f "
           "--scan %.0f --device %.0f --stop-cost %.4f --limit %.4f "
           "--vcpus %u --seed %u",
           sim_mode_names[c->mode], sim_model_names[c->model], c->ram,
           c->working_set, c->where, c->zero, c->sparse ? " --sparse" : "",
           c->dirty_rate, c->link * 8, c->compression, c->scan_rate,
           c->device, c->stop_cost, c->limit, c->vcpus, c->seed);
    if (c->bound) {
        printf(" --bound %.4f", c->bound);
    }
    if (c->new_bound) {
        printf(" --new-bound %.4f@%.4f", c->new_bound, c->bound_changes);
    }
    if (c->cap) {
        printf(" --cap %.0f", c->cap);
    }
    if (c->cap_later) {
        printf(" --cap-later %.0f@%.4f", c->cap_later, c->cap_changes);
    }
    printf("%s%s\n#   ", c->tell_link ? " --tell-link" : "",
           c->no_bursts ? " --no-bursts" : "");
}

/*
 * Random scenarios: sizes and rates spread evenly over their logarithms
 */

static double spread(GRand *rnd, double lo, double hi)
{
    return lo * pow(hi / lo, g_rand_double(rnd));
}

static void random_config(GRand *rnd, SimConfig *c)
{
    sim_defaults(c);
    c->model = g_rand_int_range(rnd, 0, SIM_MODELS);
    c->ram = spread(rnd, 1ULL << 30, 24.0 * (1ULL << 40));
    c->link = spread(rnd, 1e9 / 8, 400e9 / 8);
    /* no transfer of days, no transfer of less than a second */
    c->link = CLAMP(c->link, c->ram / 7200, c->ram / 2);
    c->working_set = c->ram * spread(rnd, 0.001, 1);
    c->where = g_rand_double(rnd);
    c->zero = g_rand_double(rnd);
    c->sparse = g_rand_int_range(rnd, 0, 4);
    c->vcpus = spread(rnd, 1, 1000);
    c->dirty_rate = c->link * spread(rnd, 0.01, 20);
    c->noise = 0.03;
    c->compression = g_rand_int_range(rnd, 0, 4) ? 1 : 0.4;
    c->scan_rate = MAX(8e9, c->link * 2);
    c->device = spread(rnd, 1e5, 1e7);
    c->stop_cost = spread(rnd, 0.005, 0.02);
    c->limit = spread(rnd, 0.1, 2);
    c->mode = g_rand_int_range(rnd, 0, 2) ? SIM_AUTO : SIM_NONE;
    if (g_rand_int_range(rnd, 0, 4) == 0) {
        c->cap = c->link * spread(rnd, 0.2, 1.5);
        c->tell_link = g_rand_boolean(rnd);
        if (g_rand_boolean(rnd)) {
            c->cap_later = c->link * spread(rnd, 0.2, 1.5);
            c->cap_changes = c->ram / c->link * g_rand_double(rnd);
        }
    }
    c->seed = g_rand_int(rnd);
}

typedef struct {
    unsigned number;
    unsigned failed;
} Tap;

static void tap(Tap *t, bool ok, const char *what)
{
    t->number++;
    t->failed += !ok;
    printf("%sok %u - %s\n", ok ? "" : "not ", t->number, what);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *x, unsigned n)
{
    qsort(x, n, sizeof(*x), by_value);
    return n ? x[n / 2] : 0;
}

/* A relative error, with a floor for times too short to matter */
static double off(double predicted, double real, double floor)
{
    return fabs(predicted - real) / MAX(real, floor);
}

static void suite_random(Tap *t, unsigned runs, unsigned seed, bool verbose)
{
    GRand *rnd = g_rand_new_with_seed(seed);
    g_autofree double *total_off = g_new(double, runs);
    g_autofree double *down_off = g_new(double, runs);
    unsigned endless = 0, late = 0, long_stop = 0, nonsense = 0, fell = 0;
    unsigned bounds = 0, limits = 0, n_half = 0, missed = 0, i;
    unsigned given_up = 0;

    for (i = 0; i < runs; i++) {
        SimConfig c;
        SimResult r;
        bool bad = false, reachable;
        double bound;

        random_config(rnd, &c);
        if (g_rand_int_range(rnd, 0, 3)) {
            SimConfig offline = c;

            offline.mode = SIM_OFFLINE;
            sim_run(&offline, &r);
            c.bound = r.offline * spread(rnd, 0.5, 4);
            c.cancel = i % 2;
            if (g_rand_int_range(rnd, 0, 4) == 0) {
                c.new_bound = r.offline * spread(rnd, 1.5, 4);
                c.bound_changes = MIN(c.bound, c.new_bound) * 0.3;
            }
        }
        sim_run(&c, &r);

        bound = c.new_bound && r.live >= c.bound_changes ? c.new_bound
                                                         : c.bound;
        /*
         * Nobody can tell what lies in RAM that has not been looked at,
         * nor what a link carries beyond a cap that is too low for bursts;
         * the first moment at which anything is known is 3 epochs
         * in.
         */
        reachable = bound && c.sparse && r.offline * 1.02 + 0.35 <= bound &&
                    (!c.new_bound || bound == c.new_bound) &&
                    sim_link_known(&c);
        if (!r.ended) {
            endless++;
            bad = true;
        }
        if (reachable && r.cancelled) {
            if (!c.new_bound) {
                given_up++;
                bad = true;
            }
        } else if (reachable) {
            bounds++;
            if (r.total > bound * 1.03 + 0.05) {
                late++;
                bad = true;
            }
            if (!r.said_bound && !c.new_bound && r.epochs >= 4) {
                missed++;
                bad |= verbose;
            }
        }
        if (c.mode == SIM_AUTO && r.said_downtime && !c.new_bound &&
            !c.cap_later && c.sparse) {
            limits++;
            if (r.downtime > c.limit * 1.2) {
                long_stop++;
                bad = true;
            }
        }
        nonsense += r.nonsense;
        fell += r.progress_fell;
        if (r.half_total > 0) {
            total_off[n_half] = off(r.half_total, r.total, 0.1);
            down_off[n_half] = off(r.half_downtime, r.downtime, 0.05);
            n_half++;
        }
        if (verbose && r.half_total > 0) {
            printf("# half-way %s %s: total %.3f for %.3f, downtime %.3f for "
                   "%.3f\n", sim_mode_names[c.mode],
                   sim_model_names[c.model], r.half_total, r.total,
                   r.half_downtime, r.downtime);
        }
        if (bad) {
            printf("# run %u:\n", i);
            print_config(&c);
            sim_print_result(&c, &r, false);
        }
    }
    g_rand_free(rnd);

    printf("# %u runs: %u bounds reachable, %u kept late; %u limits said "
           "reachable, %u broken; %u bounds wrongly called unreachable\n",
           runs, bounds, late, limits, long_stop, missed);
    printf("# half-way, median error of total %.1f %%, of downtime %.1f %%\n",
           100 * median(total_off, n_half), 100 * median(down_off, n_half));
    tap(t, !endless, "every migration ends");
    tap(t, bounds > runs / 5 && !late,
        "reachable bounds are kept: total <= bound * 1.03 + 50 ms");
    tap(t, !given_up, "no migration is cancelled that can keep its bound");
    tap(t, limits > runs / 10 && !long_stop,
        "downtime <= limit * 1.2 where said to be reachable");
    tap(t, !nonsense, "no decision outside its range");
    tap(t, !fell, "progress never runs backwards");
    tap(t, missed <= bounds / 50,
        "reachable bounds are not called unreachable at the start");
    tap(t, n_half > runs / 2 && median(total_off, n_half) <= 0.15,
        "predicted total half-way within 15 % (median)");
    tap(t, n_half > runs / 2 && median(down_off, n_half) <= 0.15,
        "predicted downtime half-way within 15 % (median)");
}

static void run_and_show(const SimConfig *c, SimResult *r)
{
    sim_run(c, r);
    printf("# ");
    sim_print_result(c, r, false);
}

/*
 * A cap is not what the link carries: neither cancelled, nor stopped at
 * once, nor called out of reach.  Where @live: not stopped before.
 */
static void check_cap(Tap *t, SimConfig *c, double live, const char *what)
{
    bool ok = true;

    for (int i = 0; i < 8; i++) {
        SimResult r;

        c->cancel = i & 1;
        c->mode = i & 2 ? SIM_AUTO : SIM_NONE;
        c->no_bursts = i & 4;
        run_and_show(c, &r);
        ok &= r.ended && !r.cancelled && r.said_bound && r.live >= live &&
              r.total <= c->bound * 1.03 + 0.05;
    }
    tap(t, ok, what);
}

static void known_caps(Tap *t)
{
    SimConfig c;
    SimResult r;

    /* a crawl for 3 s, as OpenStack Nova begins, then no cap */
    sim_defaults(&c);
    c.ram = 256ULL << 20;
    c.working_set = 16ULL << 20;
    c.dirty_rate = 10e6;
    c.cap = 1 << 20;
    c.cap_later = 1e12;
    c.cap_changes = 3;
    c.bound = 15;
    check_cap(t, &c, 3, "1 MiB/s, lifted after 3 s");
    c.cap_later = 0;
    check_cap(t, &c, 7, "1 MiB/s, never lifted: stopped after half the bound");

    c.zero = 0;
    c.cap = 20 << 20;
    c.bound = 12;
    check_cap(t, &c, 10, "20 MiB/s, bound 12 s");

    sim_defaults(&c);
    c.ram = 768ULL << 20;
    c.working_set = 64ULL << 20;
    c.zero = 0.1;
    c.dirty_rate = 500e6;
    c.link = 10e9 / 8;
    c.cap = 128 << 20;
    c.bound = 3;
    check_cap(t, &c, 1.4, "the default of 128 MiB/s, bound 3 s");

    /* a third of the link; the limit cannot be kept in time */
    sim_defaults(&c);
    c.cap = 100e6;
    c.bound = 8;
    check_cap(t, &c, 2, "1.5 GiB, 100 MB/s of 300 MB/s, bound 8 s");
    c.mode = SIM_AUTO;
    c.cancel = c.no_bursts = false;
    run_and_show(&c, &r);
    tap(t, r.downtime <= 2.5 && r.live > 5,
        "the same, auto: slowed as long as the bound allows, not stopped");

    /* bursts make it sure; without them only the bound itself does */
    c.cancel = true;
    c.ram = 4ULL << 30;
    c.zero = 0;
    c.bound = 5;
    run_and_show(&c, &r);
    tap(t, r.cancelled && r.total < 2, "14 s at what bursts have shown, "
        "bound 5 s: cancelled early");
}

/* The link is slow for a second or two, and the bound is far */
static void known_slow_start(Tap *t)
{
    static const double slow[] = { 10e6, 20e6, 30e6, 40e6, 60e6 };
    static const double until[] = { 0.7, 1, 1.4, 2 };
    unsigned early = 0, runs = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(slow); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(until); j++) {
            for (unsigned k = 0; k < 4; k++) {
                SimConfig c;
                SimResult r;

                sim_defaults(&c);
                c.ram = 1ULL << 30;
                c.working_set = 768ULL << 20;
                c.dirty_rate = k & 1 ? 3e9 : 245e6;
                c.link = slow[i];
                c.link_later = 115e6;
                c.link_changes = until[j];
                c.epoch = 0.7;
                c.bound = 30;
                c.cancel = k & 2;
                sim_run(&c, &r);
                runs++;
                if (r.cancelled || r.downtime > c.limit * 1.2) {
                    early++;
                    print_config(&c);
                    sim_print_result(&c, &r, false);
                }
            }
        }
    }
    printf("# %u of %u given up or stopped after a slow start\n", early, runs);
    tap(t, !early, "a slow start, and 28 s left: nothing is given up");
}

/* Guests and links with a known best answer */
static void suite_known(Tap *t)
{
    SimConfig c;
    SimResult r;

    /* 1 GiB rewritten at 3 GB/s, 2.4 Gbit/s */
    sim_defaults(&c);
    run_and_show(&c, &r);
    tap(t, r.total <= 1.3 * r.offline && r.downtime <= 0.33 &&
        r.lost <= 1.15 * r.offline,
        "write-heavy, auto: total <= 1.3 x offline, downtime <= 330 ms, "
        "lost work <= 1.15 x offline");
    tap(t, r.bytes <= 1.3 * r.offline * c.link,
        "write-heavy, auto: bytes <= 1.3 x offline");
    c.mode = SIM_NONE;
    run_and_show(&c, &r);
    tap(t, r.total <= 1.35 * r.offline, "write-heavy, none: total <= 1.35 x "
        "offline");

    /* a small hot set at full speed */
    sim_defaults(&c);
    c.ram = 4ULL << 30;
    c.working_set = 40e6;
    c.zero = 0.2;
    run_and_show(&c, &r);
    tap(t, r.total <= 1.2 * r.offline && r.downtime <= c.limit &&
        r.throttled_at < 0,
        "small hot set: total <= 1.2 x one copy, no throttling");

    /* a guest that writes more slowly than the link */
    sim_defaults(&c);
    c.ram = 4ULL << 30;
    c.working_set = 2ULL << 30;
    c.zero = 0;
    c.dirty_rate = 0.3 * c.link;
    run_and_show(&c, &r);
    tap(t, r.total <= 2 * r.offline && r.downtime <= c.limit * 1.2 &&
        r.throttled_at < 0, "rate 0.3 x link: converges by itself");

    /* as fast as the link, and twice as fast, all over RAM */
    c.dirty_rate = c.link;
    run_and_show(&c, &r);
    tap(t, r.total <= 2.5 * r.offline && r.downtime <= c.limit * 1.2 &&
        r.lost < r.offline, "rate = link: total <= 2.5 x offline");
    c.dirty_rate = 2 * c.link;
    run_and_show(&c, &r);
    tap(t, r.total <= 2.5 * r.offline && r.downtime <= c.limit * 1.2 &&
        r.lost <= 1.15 * r.offline, "rate = 2 x link: total <= 2.5 x offline");

    /* the smallest pulse dirties more than the link carries */
    sim_defaults(&c);
    c.working_set = 1ULL << 30;
    c.dirty_rate = 100e9;
    c.link = 50e6;
    run_and_show(&c, &r);
    tap(t, r.ended && r.total <= 1.3 * r.offline &&
        r.downtime <= c.limit * 1.2, "100 MB a pulse, 50 MB/s: ends");

    /* the link loses half of its bandwidth; the bound still holds */
    sim_defaults(&c);
    c.ram = 8ULL << 30;
    c.zero = 0;
    c.link_later = c.link / 2;
    c.link_changes = 10;
    c.bound = 62;
    run_and_show(&c, &r);
    tap(t, r.ended && r.total <= c.bound * 1.03 + 0.05 &&
        r.downtime <= c.limit * 1.2, "half the bandwidth mid-way");

    /* out of reach: said at once, and cancelled */
    sim_defaults(&c);
    c.ram = 8ULL << 30;
    c.zero = 0;
    c.bound = 15;
    c.cancel = true;
    run_and_show(&c, &r);
    tap(t, r.cancelled && r.total < 2, "out of reach: cancelled when a tenth "
        "of the time has shown it");
    c.cancel = false;
    run_and_show(&c, &r);
    tap(t, !r.said_bound && r.total <= 1.05 * r.offline + 0.5,
        "out of reach: said so, smallest overrun");

    known_caps(t);
    known_slow_start(t);

    /* 24 TiB, 1000 vCPUs, 400 Gbit/s */
    sim_defaults(&c);
    c.ram = 24.0 * (1ULL << 40);
    c.working_set = 1.0 * (1ULL << 40);
    c.zero = 0.3;
    c.vcpus = 1000;
    c.link = 50e9;
    c.scan_rate = 200e9;
    c.dirty_rate = 100e9;
    c.limit = 2;
    run_and_show(&c, &r);
    tap(t, r.total <= 1.3 * r.offline && r.downtime <= c.limit * 1.2,
        "24 TiB, 1000 vCPUs, 400 Gbit/s");
}

int sim_selftest(unsigned runs, unsigned seed, bool verbose)
{
    Tap t = { 0 };

    printf("TAP version 13\n");
    suite_known(&t);
    suite_random(&t, runs, seed, verbose);
    printf("1..%u\n", t.number);
    return t.failed ? 1 : 0;
}
