/*
 * TLM: vCPU over-commit by sched_setaffinity
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_AFFINITY_H
#define TLM_OVERCOMMIT_AFFINITY_H

#include "backend.h"

extern const TlmOcBackend tlm_oc_affinity;

/* Puts the mask back; also used after moves between cgroups */
bool tlm_oc_affinity_put_back(TlmOcHold *h, TlmOcThread *t, GError **errp);

#endif
