/*
 * TLM planner: how slowly a throttled guest runs
 *
 * The guest runs in pulses.  Its speed is their share of the time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_PULSE_H
#define TLM_PLANNER_PULSE_H

#include "view.h"

/* Only pulse.c writes it */
typedef struct TlmPulse {
    double speed;               /* 1: not throttled; 0: paused */
    double rate;                /* bytes/s owed again, at full speed */
} TlmPulse;

/* As fast as the guest may run without dirtying more than its share */
void tlm_pulse_start(TlmPulse *t, const TlmPlanView *v);
/* Bytes/s that a throttled guest is expected to dirty */
double tlm_pulse_redirty(const TlmPlanView *v);
/* Follow what the pulses really dirty */
void tlm_pulse_follow(TlmPulse *t, const TlmPlanView *v);
void tlm_pulse_pause(TlmPulse *t);
void tlm_pulse_end(TlmPulse *t);

/* Part of what the link carries that becomes dirty again */
double tlm_pulse_share(const TlmPulse *t, const TlmPlanView *v);

#endif
