/*
 * TLM: vCPU over-commit: which host CPUs to use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_CHOOSE_H
#define TLM_OVERCOMMIT_CHOOSE_H

#include "cpus.h"

/*
 * The first @n CPUs of @from, those of the NUMA node with the most of them
 * first.  A larger @n gives a superset.  @root: prefix of /sys.
 */
void tlm_cpus_choose(const char *root, const TlmCpuSet *from, unsigned n,
                     TlmCpuSet *out);

#endif
