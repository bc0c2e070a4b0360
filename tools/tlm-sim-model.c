/*
 * tlm-sim: guests, links and TLM's epochs in expected values
 *
 * RAM is cut into cells.  Within a cell all pages are alike, so that the
 * numbers of pages in each state are all there is to know: hours of a
 * 24 TiB guest take milliseconds.  The planner that is driven here is the
 * object code that QEMU runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "tlm-sim-model.h"

#define CELLS     192
#define NS        1e9
#define BUFFERS   (4e6)         /* bytes between here and there */
#define AGE       0.5           /* s; as in the coordinator */
#define GIVE_UP   (30 * 86400.0)
/* As in the pacer and burst.c: what a burst is, and what tells nothing */
#define BUCKET    0.0345        /* s of the cap */
#define UNTIMED   (1.25e6)      /* bytes; as many again are timed at least */

const char *const sim_mode_names[] = { "offline", "none", "auto" };
const char *const sim_model_names[] = {
    "idle", "uniform", "sequential", "hotcold", "phases", "bursts"
};

/* Bytes of one cell in each state; they add up to its size */
typedef struct {
    double unsent;              /* and clean */
    double clean;               /* sent */
    double settled, warm, young; /* dirty, by age */
    double fresh;               /* hit before the last sync */
    double zero;                /* share of it */
    double size;
} Cell;

typedef struct {
    const SimConfig *c;
    SimResult *r;
    GRand *rnd;
    Cell cell[CELLS];
    unsigned walk;
    double walked;              /* bytes of RAM behind mtx */
    double now;
    double sweep;               /* where the sequential writer is, bytes */
    double aged, aged_before;   /* when dirty pages aged */
    double buffered;
    double noise;
} Sim;

static bool has_bursts(const SimConfig *c, double cap)
{
    return !c->no_bursts && cap * BUCKET >= 2 * UNTIMED;
}

bool sim_link_known(const SimConfig *c)
{
    return c->tell_link || ((!c->cap || has_bursts(c, c->cap)) &&
                            (!c->cap_later || has_bursts(c, c->cap_later)));
}

static double gauss(GRand *rnd)
{
    double sum = 0;
    int i;

    for (i = 0; i < 12; i++) {
        sum += g_rand_double(rnd);
    }
    return sum - 6;
}

static double link_at(const Sim *s, double when)
{
    const SimConfig *c = s->c;

    return c->link_later && when >= c->link_changes ? c->link_later : c->link;
}

/* The noise of 0.1 s, over @length s */
static double link_noise(Sim *s, double length)
{
    double noise = s->c->noise * gauss(s->rnd) / sqrt(MAX(length, 0.05) * 10);

    return CLAMP(1 + noise, 0.5, 1.5);
}

static double dirty(const Cell *k)
{
    return k->settled + k->warm + k->young;
}

/* Share of the time @t0..@t0+@dt in which a burst is on */
static double bursting(double t0, double dt)
{
    double on = 0, t = t0, end = t0 + dt;

    while (t < end) {
        double phase = fmod(t, 4.0);
        double step = MIN((phase < 1 ? 1 : 4) - phase, end - t);

        step = MAX(step, 0.000001);
        on += phase < 1 ? step : 0;
        t += step;
    }
    return dt > 0 ? on / dt : 0;
}

/* The pages of @k are hit with probability @hit; then comes a sync */
static void hit_cell(Cell *k, double hit, bool age)
{
    double miss = 1 - hit;

    k->settled *= miss;
    k->warm *= miss;
    k->young *= miss;
    k->unsent *= miss;
    k->clean *= miss;
    if (age) {
        k->settled += k->warm;
        k->warm = k->young;
        k->young = 0;
    }
    k->fresh = hit * k->size;
    k->young += k->fresh;
}

/* The guest runs for @dt s, of which @work s count; then comes a sync */
static void run_guest(Sim *s, double dt, double work)
{
    const SimConfig *c = s->c;
    double cell = c->ram / CELLS;
    double start = c->where * (c->ram - c->working_set);
    double ws = c->working_set, rate = c->dirty_rate;
    double from = 0, length = 0;
    bool age = s->now + dt - s->aged >= AGE;
    unsigned i;

    if (age) {
        s->aged_before = s->aged;
        s->aged = s->now + dt;
    }
    if (c->model == SIM_IDLE) {
        ws = rate = 0;
    }
    if (c->model == SIM_PHASES) {
        /* a third of the working set at a time */
        ws /= 3;
        start += ws * ((unsigned)(s->now / 3) % 3);
    }
    if (c->model == SIM_BURSTS) {
        work *= bursting(s->now, dt);
    }
    if (c->model == SIM_SEQUENTIAL && ws > 0) {
        from = s->sweep;
        length = MIN(rate * work, ws);
        s->sweep = fmod(s->sweep + rate * work, ws);
    }

    for (i = 0; i < CELLS; i++) {
        double lo = MAX(i * cell, start);
        double hi = MIN((i + 1) * cell, start + ws);
        double part = MAX(hi - lo, 0), hit = 0;
        double hot;

        if (part > 0) {
            switch (c->model) {
            case SIM_SEQUENTIAL: {
                double a = MAX(lo - start, from);
                double b = MIN(hi - start, from + length);
                double wrapped = from + length - ws;

                hit = MAX(b - a, 0);
                if (wrapped > 0) {
                    b = MIN(hi - start, wrapped);
                    hit += MAX(b - MAX(lo - start, 0), 0);
                }
                hit = MIN(hit / part, 1);
                break;
            }
            case SIM_HOTCOLD:
                hot = MAX(MIN(hi, start + ws * 0.1) - lo, 0) / part;
                hit = hot * (1 - exp(-0.9 * rate * work / (ws * 0.1))) +
                      (1 - hot) * (1 - exp(-0.1 * rate * work / (ws * 0.9)));
                break;
            default:
                hit = 1 - exp(-rate * work / ws);
            }
        }
        hit_cell(&s->cell[i], hit * part / cell, age);
    }
}

/* Time and bytes that the two threads have in an epoch */
typedef struct {
    double bytes;               /* on the wire */
    double time;                /* of mtx, for zero pages */
    double sent, covered, zero;
    double held;                /* s that the cap held back */
    double burst, burst_time;   /* bytes, s: when it did not */
} Budget;

/* mtx: at most @bytes of the budget */
static void walk(Sim *s, Budget *b, double bytes)
{
    double wire = s->c->compression;

    while (s->walk < CELLS) {
        Cell *k = &s->cell[s->walk];
        double size = s->c->ram / CELLS;
        double take = k->unsent, part;
        double data = take * (1 - k->zero), zero = take * k->zero;

        if (data * wire > bytes) {
            take = bytes / wire / (1 - k->zero);
        }
        if (take * k->zero / s->c->scan_rate > b->time) {
            take = MIN(take, b->time * s->c->scan_rate / k->zero);
        }
        data = take * (1 - k->zero);
        zero = take * k->zero;
        part = k->unsent > 0 ? take / k->unsent : 1;
        s->walked += part * (size * (s->walk + 1) - s->walked);
        k->unsent -= take;
        k->clean += take;
        /* a zero page is an offset in the packet's header */
        bytes -= data * wire;
        b->bytes -= data * wire;
        b->sent += data * wire + zero / 512;
        b->covered += take;
        b->zero += zero;
        b->time -= zero / s->c->scan_rate;
        if (part < 1) {
            return;
        }
        k->unsent = 0;
        s->walk++;
    }
}

/* dtx: at most @bytes; settled pages, or all dirty ones */
static void send_dirty(Sim *s, Budget *b, double bytes, bool hot)
{
    double wire = s->c->compression;
    unsigned i;

    for (i = 0; i < CELLS && bytes > 0; i++) {
        Cell *k = &s->cell[i];
        double have = k->settled + (hot ? k->warm + k->young : 0);
        double take = MIN(have, bytes / wire);
        double part = have > 0 ? take / have : 0;

        k->settled -= k->settled * part;
        if (hot) {
            k->warm -= k->warm * part;
            k->young -= k->young * part;
        }
        k->clean += take;
        bytes -= take * wire;
        b->bytes -= take * wire;
        b->sent += take * wire;
        b->covered += take;
    }
}

static double count(const Sim *s, double *unsent, double *hot, double *fresh)
{
    double sum = 0;
    unsigned i;

    *unsent = *hot = *fresh = 0;
    for (i = 0; i < CELLS; i++) {
        sum += dirty(&s->cell[i]);
        *unsent += s->cell[i].unsent;
        *hot += s->cell[i].warm + s->cell[i].young;
        *fresh += s->cell[i].fresh;
    }
    return sum;
}

static double sync_cost(const SimConfig *c)
{
    return 0.0005 + c->ram / (1ULL << 30) * 0.00002;
}

/* Seconds to send all that is owed, from @when on */
static double send_rest(Sim *s, double when)
{
    double wire = s->c->device + s->buffered, scan = 0, t = 0;
    unsigned i;

    for (i = 0; i < CELLS; i++) {
        Cell *k = &s->cell[i];

        wire += (k->unsent * (1 - k->zero) + dirty(k)) * s->c->compression;
        scan += k->unsent * k->zero / s->c->scan_rate;
    }
    s->noise = link_noise(s, wire / link_at(s, when));
    s->r->bytes += wire - s->buffered;
    while (wire > 0) {
        double bw = link_at(s, when + t) * s->noise;
        double step = wire / bw;

        if (s->c->link_later && when + t < s->c->link_changes) {
            step = MIN(step, s->c->link_changes - when - t + 0.000000001);
        }
        wire -= bw * step;
        t += step;
        if (wire < 1) {
            break;
        }
    }
    return MAX(t, scan);
}

static void setup(Sim *s, const SimConfig *c, SimResult *r)
{
    double cell = c->ram / CELLS;
    double start = c->where * (c->ram - c->working_set);
    unsigned i;

    memset(s, 0, sizeof(*s));
    memset(r, 0, sizeof(*r));
    s->c = c;
    s->r = r;
    s->rnd = g_rand_new_with_seed(c->seed);
    s->noise = 1;
    r->throttled_at = -1;
    for (i = 0; i < CELLS; i++) {
        double lo = MAX(i * cell, start);
        double hi = MIN((i + 1) * cell, start + c->working_set);
        double part = MAX(hi - lo, 0) / cell;

        s->cell[i].size = s->cell[i].unsent = cell;
        /* there are always a few */
        s->cell[i].zero = MAX((1 - part) * c->zero, 0.001);
        if (c->sparse) {
            s->cell[i].unsent *= 1 - s->cell[i].zero;
            s->cell[i].clean = cell - s->cell[i].unsent;
            s->cell[i].zero = 0.001;
        }
    }
    r->offline = c->stop_cost + send_rest(s, 0);
    r->bytes = 0;
}

static void check_sense(SimResult *r, const TlmPlanDecision *d, double last)
{
    r->progress_fell |= d->progress < last;
    r->nonsense |= !(d->progress >= 0 && d->progress <= 1) ||
                   !(d->guest_speed >= 0 && d->guest_speed <= 1) ||
                   !(d->bandwidth >= 0) || !(d->dirty_rate >= 0) ||
                   d->epoch_ms < 1 || d->epoch_ms > 10000 ||
                   !tlm_plan_reason_str(d->reason);
}

static void epoch(Sim *s, double length, double cap,
                  const TlmPlanDecision *d, bool *mtx_done, Budget *b,
                  double *lasted)
{
    double bw, half, left, can;
    bool was_done = *mtx_done;

    s->noise = link_noise(s, length);
    bw = link_at(s, s->now) * s->noise;
    *b = (Budget) { .bytes = bw * length, .time = length };
    /* empty buffers take what the link has not yet */
    left = MIN(BUFFERS, bw * 0.05) - s->buffered;
    b->bytes += left;
    s->buffered += left;
    can = b->bytes;
    if (cap > 0) {
        b->bytes = MIN(b->bytes, cap * length);
    }
    b->held = can > 0 ? length * (1 - b->bytes / can) : 0;
    if (b->held > 0 && has_bursts(s->c, cap)) {
        b->burst = cap * BUCKET - UNTIMED;
        b->burst_time = b->burst / (link_at(s, s->now) * link_noise(s, 0));
    }
    left = b->bytes;
    half = b->bytes / 2;
    if (d->send_settled) {
        send_dirty(s, b, *mtx_done ? b->bytes : half, d->send_hot);
    }
    walk(s, b, b->bytes);
    if (d->send_settled && b->bytes > 0) {
        send_dirty(s, b, b->bytes, d->send_hot);
    }
    s->r->bytes += b->sent;
    *mtx_done = s->walk >= CELLS;
    *lasted = length;
    if (*mtx_done && !was_done && left > 0) {
        /* the pass has ended: so does the epoch */
        *lasted = length * CLAMP(MAX(1 - b->bytes / left,
                                     1 - b->time / length), 0.01, 1);
        b->bytes = 0;
    }
    b->bytes = left > 0 ? *lasted * b->bytes / left : 0; /* idle seconds */
    if (b->time < *lasted * 0.5) {
        b->bytes = 0;           /* mtx was busy looking at zero pages */
    }
}

static void note(SimResult *r, const TlmPlanDecision *d, double *half)
{
    if (!d->predicted_total_ms) {
        return;
    }
    if (r->epochs == 4) {
        r->said_bound = d->bound_reachable;
        r->said_downtime = d->downtime_reachable;
        r->first_total = d->predicted_total_ms / 1e3;
        r->first_downtime = d->predicted_downtime_ms / 1e3;
        r->smallest_bound = d->smallest_bound_ms / 1e3;
    }
    if (d->progress >= 0.5 && *half < 0) {
        *half = d->progress;
        r->half_total = d->predicted_total_ms / 1e3;
        r->half_downtime = d->predicted_downtime_ms / 1e3;
    }
}

void sim_run(const SimConfig *c, SimResult *r)
{
    g_autofree Sim *s = g_new(Sim, 1);
    TlmPlanner *p = tlm_planner_new();
    TlmPlanDecision d = {
        .guest_speed = 1, .epoch_ms = 100, .send_settled = true,
    };
    TlmPlanParams params = {
        .time_bound_ms = c->bound * 1e3,
        .downtime_limit_ms = c->limit * 1e3,
        .max_bandwidth = c->cap,
        .switchover_bandwidth = c->tell_link ? c->link : 0,
        .epoch_ms = c->epoch * 1e3,
        .converge = c->mode == SIM_AUTO ? TLM_PLAN_CONVERGE_AUTO
                                        : TLM_PLAN_CONVERGE_NONE,
        .bound_action = c->cancel ? TLM_PLAN_BOUND_CANCEL
                                  : TLM_PLAN_BOUND_COMPLETE,
    };
    double sync = sync_cost(c), half = -1, covered = 0, stop;
    bool mtx_done = false;

    setup(s, c, r);
    if (c->mode == SIM_OFFLINE) {
        r->ended = true;
        r->total = r->downtime = r->lost = r->offline;
        r->bytes = (c->ram - (c->ram - c->working_set) * c->zero) *
                   c->compression;
        goto out;
    }

    while (s->now < GIVE_UP) {
        double length = d.epoch_ms / 1e3, lasted, unsent, hot, fresh, left;
        double last = d.progress;
        TlmPlanSample sample;
        Budget b;

        if (c->cap_later && s->now >= c->cap_changes) {
            params.max_bandwidth = c->cap_later;
        }
        if (c->new_bound && s->now >= c->bound_changes) {
            params.time_bound_ms = c->new_bound * 1e3;
        }
        if (!r->epochs) {
            length = 0;         /* the coordinator asks before it starts */
        }
        epoch(s, length, params.max_bandwidth, &d, &mtx_done, &b, &lasted);
        run_guest(s, lasted + sync, (lasted + sync) * d.guest_speed);
        s->now += lasted + sync;
        r->lost += (lasted + sync) * (1 - d.guest_speed);
        left = count(s, &unsent, &hot, &fresh);
        covered += b.covered;
        r->epochs++;

        sample = (TlmPlanSample) {
            .now_ns = s->now * NS,
            .epoch_ns = (lasted + sync) * NS,
            .sync_ns = sync * NS,
            .idle_ns = (b.bytes + sync) * NS,
            .total_bytes = c->ram,
            .unsent_bytes = unsent,
            .dirty_bytes = left,
            .hot_bytes = hot,
            .hot_ns = c->seed % 2 ? (s->now - s->aged_before + lasted) * NS
                                  : 0,
            .dirtied_bytes = fresh,
            .sent_bytes = b.sent,
            .sent_pages_bytes = b.covered,
            .zero_bytes = b.zero,
            .device_bytes = c->device,
            .held_ns = b.held * NS,
            .burst_bytes = b.burst,
            .burst_ns = b.burst_time * NS,
            .guest_speed = d.guest_speed,
            .mtx_done = mtx_done,
            .can_switchover = true,
        };
        tlm_planner_step(p, &params, &sample, &d);
        check_sense(r, &d, last);
        note(r, &d, &half);
        if (d.guest_speed < 1 && r->throttled_at < 0) {
            r->throttled_at = s->now;
        }
        if (c->verbose) {
            printf("%9.3f %7.3f: unsent %9.1f dirty %9.1f hot %9.1f fresh "
                   "%9.1f sent %8.1f idle %.3f | bw %7.1f speed %.4f%s next "
                   "%5" PRIu64 " total %8.2f down %7.3f %5.1f%% %s\n",
                   s->now, lasted, unsent / 1e6, left / 1e6, hot / 1e6,
                   fresh / 1e6, b.sent / 1e6, b.bytes, d.bandwidth / 1e6,
                   d.guest_speed, d.send_hot ? " hot" : "", d.epoch_ms,
                   d.predicted_total_ms / 1e3, d.predicted_downtime_ms / 1e3,
                   d.progress * 100, tlm_plan_reason_str(d.reason));
        }
        r->reason = tlm_plan_reason_str(d.reason);
        if (d.action == TLM_PLAN_CANCEL) {
            r->ended = r->cancelled = true;
            r->total = r->live = s->now;
            goto out;
        }
        if (d.action == TLM_PLAN_SWITCHOVER) {
            r->ended = true;
            break;
        }
    }
    if (!r->ended) {
        r->total = s->now;
        goto out;
    }

    /* the guest still runs until it is stopped; the last sync */
    r->live = s->now;
    stop = 0.001 + 0.00002 * c->vcpus;
    run_guest(s, stop, stop * d.guest_speed);
    s->now += stop;
    r->downtime = sync + c->stop_cost;
    {
        double unsent, hot, fresh;

        covered += count(s, &unsent, &hot, &fresh) + unsent;
    }
    r->downtime += send_rest(s, s->now + r->downtime);
    r->total = s->now + r->downtime;
    r->lost += r->downtime;
    r->again = MAX(covered - c->ram, 0);
out:
    g_rand_free(s->rnd);
    tlm_planner_free(p);
}

void sim_defaults(SimConfig *c)
{
    *c = (SimConfig) {
        .mode = SIM_AUTO,
        .model = SIM_UNIFORM,
        .ram = 1536.0 * (1 << 20),
        .zero = 0.8,
        .working_set = 1ULL << 30,
        .where = 0.5,
        .dirty_rate = 3e9,
        .link = 3e8,
        .noise = 0.03,
        .compression = 1,
        .scan_rate = 8e9,
        .device = 1e6,
        .stop_cost = 0.012,
        .limit = 0.3,
        .vcpus = 1,
        .seed = 1,
    };
}
