/*
 * TLM: vCPU over-commit: making and removing a cgroup
 *
 * The name of one of ours is tlm-PID-STARTTIME, with -CONTROLLER behind it if
 * we had to enable that for the parent's children (v2 only).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_GROUP_H
#define TLM_OVERCOMMIT_GROUP_H

#include "ops.h"

/* The name for process directory @proc (/proc/PID), without controller */
char *tlm_oc_group_name(const char *proc, GError **errp);
/* @name is one of ours; if so, gives process and start time */
bool tlm_oc_group_parse(const char *name, pid_t *pid, uint64_t *start);
/*
 * Makes one below @parent, on v2 threaded and with @controller.  Gives its
 * directory in @group, also if it fails after the directory has been made.
 */
bool tlm_oc_group_make(const TlmOcSystem *sys, const char *parent,
                       const char *name, const char *controller, bool v2,
                       char **group, GError **errp);
/*
 * Moves threads that are left in @dir to its parent, removes it, and disables
 * the controller if its name says so and no other of our cgroups needs it.
 * May be called again if it fails; an error RESTORE says that this is of no
 * use, as others have begun to use the controller.
 */
bool tlm_oc_group_remove(const TlmOcSystem *sys, const char *dir,
                         GError **errp);

#endif
