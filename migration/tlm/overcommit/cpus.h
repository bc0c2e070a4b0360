/*
 * TLM: vCPU over-commit: sets of host CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_CPUS_H
#define TLM_OVERCOMMIT_CPUS_H

/* The kernel's largest NR_CPUS */
#define TLM_OC_MAX_CPUS 8192

typedef struct TlmCpuSet {
    unsigned long bits[TLM_OC_MAX_CPUS / 8 / sizeof(unsigned long)];
} TlmCpuSet;

void tlm_cpus_add(TlmCpuSet *s, unsigned cpu);
void tlm_cpus_remove(TlmCpuSet *s, unsigned cpu);
bool tlm_cpus_has(const TlmCpuSet *s, unsigned cpu);
unsigned tlm_cpus_count(const TlmCpuSet *s);
void tlm_cpus_or(TlmCpuSet *s, const TlmCpuSet *other);
void tlm_cpus_and(TlmCpuSet *s, const TlmCpuSet *other);
bool tlm_cpus_equal(const TlmCpuSet *a, const TlmCpuSet *b);
bool tlm_cpus_subset(const TlmCpuSet *a, const TlmCpuSet *of);
/* Reads the kernel's list format; an empty list is an empty set */
bool tlm_cpus_parse(const char *list, TlmCpuSet *s, GError **errp);
char *tlm_cpus_format(const TlmCpuSet *s);

#endif
