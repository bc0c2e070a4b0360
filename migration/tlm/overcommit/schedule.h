/*
 * TLM: vCPU over-commit: from which progress on how many host CPUs
 *
 * The idea of a schedule is from the original TLM for qemu-kvm 1.0.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_SCHEDULE_H
#define TLM_OVERCOMMIT_SCHEDULE_H

/* From @progress (percent of the mtx pass, 0..100) on, @cpus host CPUs */
typedef struct TlmOcStep {
    double progress;
    unsigned cpus;
} TlmOcStep;

typedef struct TlmOcSchedule TlmOcSchedule;

/**
 * tlm_oc_schedule_new: make a schedule from @n steps
 *
 * Progress must rise from step to step and lie in 0..100; cpus must be at
 * least 1 and may fall or rise.  Returns NULL and sets @errp (INVALID) else.
 */
TlmOcSchedule *tlm_oc_schedule_new(const TlmOcStep *steps, size_t n,
                                   GError **errp);

/**
 * tlm_oc_schedule_parse: make a schedule from the notation of the TLM papers
 *
 * "0.5-(2)" is two host CPUs from half of the pass on.  Commas separate
 * steps: "0.2-(4),0.5-(2)".  Progress is a fraction here, not percent.
 */
TlmOcSchedule *tlm_oc_schedule_parse(const char *text, GError **errp);

void tlm_oc_schedule_free(TlmOcSchedule *s);

/* The host CPUs allowed at @progress percent; 0: no limit (yet) */
unsigned tlm_oc_schedule_cpus(const TlmOcSchedule *s, double progress);

/* Where the first step after @progress percent is; HUGE_VAL: there is none */
double tlm_oc_schedule_next(const TlmOcSchedule *s, double progress);

/* Gives step number @i, from 0; false: there are not so many */
bool tlm_oc_schedule_step(const TlmOcSchedule *s, size_t i, TlmOcStep *step);

/* The schedule in the notation that tlm_oc_schedule_parse() reads */
char *tlm_oc_schedule_to_string(const TlmOcSchedule *s);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(TlmOcSchedule, tlm_oc_schedule_free)

#endif
