/*
 * tlm-sim: what TLM's planner does to guests and links of any size
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include <getopt.h>
#include "tlm-sim-model.h"
#include "tlm-sim-print.h"
#include "tlm-sim-suite.h"

/* "24T", "1.5G", "300M": powers of @unit */
static bool parse_size(const char *text, double unit, double *value)
{
    static const char suffixes[] = "kmgtp";
    char *end;
    const char *s;
    double x = g_ascii_strtod(text, &end);

    if (end == text || !(x >= 0)) {
        return false;
    }
    if (*end) {
        s = strchr(suffixes, g_ascii_tolower(*end));
        if (!s || end[1]) {
            return false;
        }
        x *= pow(unit, s - suffixes + 1);
    }
    *value = x;
    return true;
}

static int parse_name(const char *text, const char *const *names, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        if (!strcmp(text, names[i])) {
            return i;
        }
    }
    return -1;
}

static void usage(FILE *f)
{
    fprintf(f,
"Usage: tlm-sim [options]\n"
"Drive TLM's planner with a model of a guest and a link.\n"
"  --mode offline|none|auto|all   default all\n"
"  --model NAME         idle uniform sequential hotcold phases bursts\n"
"  --ram SIZE           bytes; suffixes k m g t are powers of 1024\n"
"  --ws SIZE            working set\n"
"  --where X            where in RAM it lies, 0..1\n"
"  --zero X             share of zero pages outside of it, 0..1\n"
"  --sparse             they were never touched, and that is known\n"
"  --rate N             bytes/s dirtied; suffixes are powers of 1000\n"
"  --link N             bit/s\n"
"  --link-later N@T     bit/s from T seconds on\n"
"  --cap N              max-bandwidth, bytes/s\n"
"  --cap-later N@T      max-bandwidth from T seconds on\n"
"  --tell-link          switchover-bandwidth is set to the link's\n"
"  --no-bursts          nothing is known of the link beyond the cap\n"
"  --noise X            of the link; default 0.03\n"
"  --compression X      bytes sent per byte\n"
"  --scan N             bytes/s of zero pages that mtx looks at\n"
"  --device N           bytes of device state\n"
"  --stop-cost T        seconds that stopping takes beside the bytes\n"
"  --bound T            seconds\n"
"  --new-bound B@T      bound from T seconds on\n"
"  --cancel             bound action is cancel\n"
"  --limit T            downtime limit, seconds\n"
"  --epoch T            fixed epoch length, seconds\n"
"  --vcpus N  --seed N  --json  --verbose\n"
"  --selftest [--runs N]  the suite, as TAP\n");
}

/* "VALUE@TIME" */
static bool parse_at(const char *text, double unit, double *value, double *at)
{
    g_auto(GStrv) part = g_strsplit(text, "@", 2);

    return part[0] && part[1] && parse_size(part[0], unit, value) &&
           parse_size(part[1], 1000, at);
}

int main(int argc, char **argv)
{
    enum {
        MODE = 256, MODEL, RAM, WS, WHERE, ZERO, SPARSE, RATE, LINK, LATER,
        CAP, CAP_LATER, TELL, NO_BURSTS, NOISE, COMPRESSION, SCAN, DEVICE,
        STOP_COST, BOUND, NEW_BOUND, CANCEL, LIMIT, EPOCH, VCPUS, SEED,
        JSON, VERBOSE,
        SELFTEST, RUNS, HELP,
    };
    static const struct option options[] = {
        { "mode", 1, NULL, MODE }, { "model", 1, NULL, MODEL },
        { "ram", 1, NULL, RAM }, { "ws", 1, NULL, WS },
        { "where", 1, NULL, WHERE }, { "zero", 1, NULL, ZERO },
        { "sparse", 0, NULL, SPARSE }, { "rate", 1, NULL, RATE },
        { "link", 1, NULL, LINK }, { "link-later", 1, NULL, LATER },
        { "cap", 1, NULL, CAP }, { "cap-later", 1, NULL, CAP_LATER },
        { "tell-link", 0, NULL, TELL }, { "no-bursts", 0, NULL, NO_BURSTS },
        { "noise", 1, NULL, NOISE },
        { "compression", 1, NULL, COMPRESSION }, { "scan", 1, NULL, SCAN },
        { "device", 1, NULL, DEVICE }, { "stop-cost", 1, NULL, STOP_COST },
        { "bound", 1, NULL, BOUND },
        { "new-bound", 1, NULL, NEW_BOUND }, { "cancel", 0, NULL, CANCEL },
        { "limit", 1, NULL, LIMIT }, { "epoch", 1, NULL, EPOCH },
        { "vcpus", 1, NULL, VCPUS }, { "seed", 1, NULL, SEED },
        { "json", 0, NULL, JSON }, { "verbose", 0, NULL, VERBOSE },
        { "selftest", 0, NULL, SELFTEST }, { "runs", 1, NULL, RUNS },
        { "help", 0, NULL, HELP }, { NULL, 0, NULL, 0 },
    };
    bool json = false, test = false, ok = true, ended = true;
    int mode = -1, opt, i;
    double runs = 1000, seed = 1, vcpus = 1;
    SimConfig c;

    sim_defaults(&c);
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case MODE:
            mode = parse_name(optarg, sim_mode_names, 3);
            ok = mode >= 0 || !strcmp(optarg, "all");
            break;
        case MODEL:
            i = parse_name(optarg, sim_model_names, SIM_MODELS);
            ok = i >= 0;
            c.model = ok ? i : 0;
            break;
        case RAM:
            ok = parse_size(optarg, 1024, &c.ram) && c.ram >= 1 << 20;
            break;
        case WS:
            ok = parse_size(optarg, 1024, &c.working_set);
            break;
        case WHERE:
            ok = parse_size(optarg, 1000, &c.where) && c.where <= 1;
            break;
        case ZERO:
            ok = parse_size(optarg, 1000, &c.zero) && c.zero <= 1;
            break;
        case RATE:
            ok = parse_size(optarg, 1000, &c.dirty_rate);
            break;
        case LINK:
            ok = parse_size(optarg, 1000, &c.link) && c.link > 0;
            c.link /= 8;
            break;
        case LATER:
            ok = parse_at(optarg, 1000, &c.link_later, &c.link_changes) &&
                 c.link_later > 0;
            c.link_later /= 8;
            break;
        case CAP:
            ok = parse_size(optarg, 1000, &c.cap);
            break;
        case CAP_LATER:
            ok = parse_at(optarg, 1000, &c.cap_later, &c.cap_changes);
            break;
        case TELL:
            c.tell_link = true;
            break;
        case NO_BURSTS:
            c.no_bursts = true;
            break;
        case NOISE:
            ok = parse_size(optarg, 1000, &c.noise);
            break;
        case COMPRESSION:
            ok = parse_size(optarg, 1000, &c.compression) &&
                 c.compression > 0;
            break;
        case SCAN:
            ok = parse_size(optarg, 1000, &c.scan_rate) && c.scan_rate > 0;
            break;
        case DEVICE:
            ok = parse_size(optarg, 1000, &c.device);
            break;
        case STOP_COST:
            ok = parse_size(optarg, 1000, &c.stop_cost);
            break;
        case BOUND:
            ok = parse_size(optarg, 1000, &c.bound);
            break;
        case NEW_BOUND:
            ok = parse_at(optarg, 1000, &c.new_bound, &c.bound_changes);
            break;
        case CANCEL:
            c.cancel = true;
            break;
        case LIMIT:
            ok = parse_size(optarg, 1000, &c.limit);
            break;
        case EPOCH:
            ok = parse_size(optarg, 1000, &c.epoch);
            break;
        case SPARSE:
            c.sparse = true;
            break;
        case VCPUS:
            ok = parse_size(optarg, 1000, &vcpus);
            break;
        case SEED:
            ok = parse_size(optarg, 1000, &seed) && seed <= UINT32_MAX;
            break;
        case JSON:
            json = true;
            break;
        case VERBOSE:
            c.verbose = true;
            break;
        case SELFTEST:
            test = true;
            break;
        case RUNS:
            ok = parse_size(optarg, 1000, &runs) && runs >= 1 && runs <= 1e7;
            break;
        case HELP:
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
        if (!ok) {
            fprintf(stderr, "tlm-sim: cannot use '%s' for %s\n", optarg,
                    argv[optind - 2]);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "tlm-sim: unexpected argument '%s'\n", argv[optind]);
        return 2;
    }
    if (test) {
        return sim_selftest(runs, seed, c.verbose);
    }
    c.working_set = MIN(c.working_set, c.ram);
    c.seed = seed;
    c.vcpus = vcpus;
    for (i = 0; i < 3; i++) {
        SimResult r;

        if (mode >= 0 && mode != i) {
            continue;
        }
        c.mode = i;
        sim_run(&c, &r);
        sim_print_result(&c, &r, json);
        ended &= r.ended;
    }
    return ended ? 0 : 1;
}
