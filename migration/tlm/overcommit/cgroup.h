/*
 * TLM: vCPU over-commit by cgroups
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_CGROUP_H
#define TLM_OVERCOMMIT_CGROUP_H

#include "backend.h"

extern const TlmOcBackend tlm_oc_cgroup_v2_cpuset;
extern const TlmOcBackend tlm_oc_cgroup_v1_cpuset;
extern const TlmOcBackend tlm_oc_cgroup_v2_quota;
extern const TlmOcBackend tlm_oc_cgroup_v1_quota;

#endif
