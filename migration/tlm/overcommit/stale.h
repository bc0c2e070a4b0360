/*
 * TLM: vCPU over-commit: removes cgroups of processes that were killed
 *
 * Both functions add the paths of removed cgroups to @removed, if it is not
 * NULL, and errors to @errors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_STALE_H
#define TLM_OVERCOMMIT_STALE_H

#include "ops.h"

/* Looks at the children of cgroup @parent */
void tlm_oc_clean_below(const TlmOcSystem *sys, const char *parent,
                        GPtrArray *removed, GString *errors);
/* Does this, in each hierarchy, for the cgroups that this process is in */
void tlm_oc_clean_own(const TlmOcSystem *sys, GPtrArray *removed,
                      GString *errors);

#endif
