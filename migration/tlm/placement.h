/*
 * TLM: over-commit during a migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLACEMENT_H
#define TLM_PLACEMENT_H

#include "qapi/qapi-types-migration.h"

/* Whether over-commit can do what these ask for */
bool tlm_placement_check(const MigrationParameters *params, Error **errp);
/* A schedule in the notation of the TLM papers: "0.2-(4),0.5-(2)" */
bool tlm_placement_parse(const char *text,
                         MigrationTlmOvercommitStepList **list, Error **errp);
char *tlm_placement_to_string(const MigrationTlmOvercommitStepList *list);
/* When a migration begins; BQL held */
bool tlm_placement_start(Error **errp);
/*
 * Holds the vCPUs that there are on as many host CPUs as the schedule says
 * for @progress percent.  Returns the speed, 0 to 1, at which the caller
 * must run the vCPUs because they could not be placed otherwise.
 * Coordinator, without the BQL, as the next two.
 */
double tlm_placement_step(double progress);
/* Where the schedule's first step after @progress is; HUGE_VAL: none */
double tlm_placement_next(double progress);
/* Everything back as it was.  Idempotent. */
void tlm_placement_end(void);
/* The share of full speed that the vCPUs have through over-commit */
double tlm_placement_share(void);
/* Guest time lost to over-commit other than by throttling, in ns */
double tlm_placement_lost_ns(void);
/* For query-migrate.  NULL: there is nothing to say. */
MigrationTlmOvercommit *tlm_placement_info(void);

#endif
