/*
 * TLM: vCPU over-commit: chooses host CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_CHOOSE_H
#define TLM_OVERCOMMIT_CHOOSE_H

#include "cpus.h"

/*
 * Gives the first @n CPUs of @from, beginning with the NUMA node that has most
 * of them.  A larger @n gives a superset.  @root: prefix of /sys.
 */
void tlm_cpus_choose(const char *root, const TlmCpuSet *from, unsigned n,
                     TlmCpuSet *out);

#endif
