/*
 * TLM: vCPU over-commit: makes and removes a cgroup
 *
 * The name of a cgroup of TLM is tlm-PID-STARTTIME.  -CONTROLLER follows if TLM
 * had to enable that controller for the parent's children (v2 only).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_GROUP_H
#define TLM_OVERCOMMIT_GROUP_H

#include "ops.h"

/* The name for process directory @proc (/proc/PID), without controller */
char *tlm_oc_group_name(const char *proc, GError **errp);
/* Is @name one of TLM's?  If so, gives process and start time. */
bool tlm_oc_group_parse(const char *name, pid_t *pid, uint64_t *start);
/*
 * Makes a cgroup below @parent, on v2 threaded and with @controller.  Gives its
 * directory in @group, also if it fails after making the directory.
 */
bool tlm_oc_group_make(const TlmOcSystem *sys, const char *parent,
                       const char *name, const char *controller, bool v2,
                       char **group, GError **errp);
/*
 * Moves threads that are left in @dir to its parent, removes @dir, and disables
 * the controller if the name says so and no other of TLM's cgroups needs it.
 * May be called again if it fails.  An error RESTORE says that this is of no
 * use, as others have begun to use the controller.
 */
bool tlm_oc_group_remove(const TlmOcSystem *sys, const char *dir,
                         GError **errp);

#endif
