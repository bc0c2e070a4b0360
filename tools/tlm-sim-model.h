/*
 * tlm-sim: guests, links and TLM's epochs in expected values
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_SIM_MODEL_H
#define TLM_SIM_MODEL_H

#include "planner/planner.h"

typedef enum {
    SIM_OFFLINE,                /* stop the guest, then send it */
    SIM_NONE,                   /* plain TLM */
    SIM_AUTO,                   /* TLM that converges */
} SimMode;

typedef enum {
    SIM_IDLE,
    SIM_UNIFORM,                /* anywhere in the working set */
    SIM_SEQUENTIAL,             /* round and round the working set */
    SIM_HOTCOLD,                /* 90 % of the writes to 10 % of it */
    SIM_PHASES,                 /* uniform, changing place every 3 s */
    SIM_BURSTS,                 /* uniform, 1 s of every 4 s */
    SIM_MODELS,
} SimModel;

extern const char *const sim_mode_names[];
extern const char *const sim_model_names[];

/* Rates in bytes/s, times in s, sizes in bytes */
typedef struct SimConfig {
    SimMode mode;
    SimModel model;
    double ram;
    double zero;                /* share of RAM outside the working set */
    bool sparse;                /* zero pages are known and never looked at */
    double working_set;
    double where;               /* of its start in RAM, 0..1 */
    double dirty_rate;
    double link;
    double link_later;          /* 0: does not change */
    double link_changes;        /* when */
    double noise;               /* of the link, e.g. 0.03 */
    double cap;                 /* max-bandwidth; 0: none */
    double cap_later;           /* 0: does not change */
    double cap_changes;         /* when */
    bool tell_link;             /* switchover-bandwidth is set */
    bool no_bursts;             /* nothing tells what a cap hides */
    double compression;         /* wire bytes per byte */
    double scan_rate;           /* one thread's, through zero pages */
    double device;
    double stop_cost;           /* vm stop, device state, the last word */
    double bound;               /* 0: none */
    double new_bound;           /* 0: does not change */
    double bound_changes;       /* when */
    double limit;               /* downtime-limit */
    bool cancel;                /* bound-action */
    double epoch;               /* 0: adaptive */
    unsigned vcpus;
    unsigned seed;
    bool verbose;
} SimConfig;

typedef struct SimResult {
    bool ended;                 /* false: never */
    bool cancelled;
    double total, downtime, live;
    double bytes;               /* on the wire */
    double again;               /* guest bytes sent more than once */
    double lost;                /* s of guest work */
    unsigned epochs;
    double throttled_at;        /* < 0: never */
    double offline;             /* total, had the guest been stopped first */
    /* what the planner said when it first knew, and half-way */
    bool said_bound, said_downtime;
    double first_total, first_downtime;
    double half_total, half_downtime;
    double smallest_bound;
    bool progress_fell, nonsense;
    const char *reason;
} SimResult;

void sim_defaults(SimConfig *c);
/* Can the planner learn what the link carries, whatever the cap? */
bool sim_link_known(const SimConfig *c);
void sim_run(const SimConfig *c, SimResult *r);

#endif
