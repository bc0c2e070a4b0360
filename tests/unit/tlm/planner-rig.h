/*
 * Migrations for the tests of the planner: a guest and a link in a few
 * numbers, one epoch at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_PLANNER_RIG_H
#define TEST_PLANNER_RIG_H

#include "planner/planner.h"

#define MS 1000000LL
#define S  1000000000LL
#define MB 1000000ULL
#define GB 1000000000ULL
#define MIB (1024 * 1024ULL)

typedef struct {
    TlmPlanner *p;
    TlmPlanParams params;
    TlmPlanSample s;
    TlmPlanDecision d;
    uint64_t link;              /* bytes/s */
    uint64_t hot;               /* bytes, all written to in each epoch */
    uint64_t cold_rate;         /* bytes/s; each hits a page sent before */
    uint64_t even_rate;         /* bytes/s, written all over RAM */
    double zero;                /* share of the unsent pages */
    bool bursts;                /* what the link carries beyond a cap shows */
    bool started;
    double progress;
} Rig;

void rig_init(Rig *r, uint64_t ram, uint64_t link);
void rig_free(Rig *r);
void rig_hot(Rig *r, uint64_t hot);
void step(Rig *r);
TlmPlanAction epoch(Rig *r);
unsigned run(Rig *r, unsigned max);
double now(const Rig *r);
double end_of_stop(const Rig *r);
void rig_bound(Rig *r, uint64_t bound_ms, TlmPlanBoundAction action);

#endif
