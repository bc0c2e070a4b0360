/*
 * TLM: why the planner decided as it did, in QAPI's words and in a person's
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_DECISION_H
#define TLM_DECISION_H

#include "qapi/qapi-types-migration-tlm.h"
#include "planner/planner.h"

/* @reason is one that tlm_planner_step() gives */
MigrationTlmDecision tlm_decision(TlmPlanReason reason);
/* A sentence */
const char *tlm_decision_text(MigrationTlmDecision decision);

#endif
