/*
 * TLM planner: does what is left become less, with the guest slowed?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_STUCK_H
#define TLM_PLANNER_STUCK_H

#include "view.h"

/* Only stuck.c writes it */
typedef struct TlmStuck {
    double least;               /* guest bytes left, since progress counts */
    unsigned epochs;            /* without progress, in a row */
} TlmStuck;

/* Progress is counted anew */
void tlm_stuck_hope(TlmStuck *s);
/* As much may be tried again, without progress so far */
void tlm_stuck_retry(TlmStuck *s);
/* Call once an epoch.  True: no progress for too many of them. */
bool tlm_stuck_look(TlmStuck *s, const TlmPlanView *v);

#endif
