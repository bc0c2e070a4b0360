/*
 * TLM: vCPU over-commit: reads about threads and cgroup mounts in /proc
 *
 * @proc is a directory /proc/PID.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_PROC_H
#define TLM_OVERCOMMIT_PROC_H

#include "cpus.h"

/* A held thread; all members up to @mems are from before the change */
typedef struct TlmOcThread {
    pid_t tid;
    uint64_t start;         /* start time, clock ticks: tells reused ids */
    char *cgroups;          /* text of /proc/PID/task/TID/cgroup */
    TlmCpuSet mask;         /* affinity */
    TlmCpuSet mems;         /* allowed memory nodes */
    bool taken;             /* a backend may have changed this thread */
    bool held;              /* by affinity, and this is the mask it got: */
    TlmCpuSet given;
} TlmOcThread;

/* Save the state of @tid; NULL without @errp set: there is no such thread */
TlmOcThread *tlm_oc_thread_save(const char *proc, pid_t tid, GError **errp);
void tlm_oc_thread_free(TlmOcThread *t);
/* Does the saved thread still exist (and its id was not reused)? */
bool tlm_oc_thread_alive(const char *proc, const TlmOcThread *t);
/* Its affinity mask, or memory nodes, as the kernel now reports */
bool tlm_oc_thread_mask(const char *proc, pid_t tid, TlmCpuSet *mask,
                        TlmCpuSet *mems, GError **errp);
/* Text of its cgroup file now */
char *tlm_oc_thread_cgroups(const char *proc, pid_t tid, GError **errp);
/* Start time and id in a "stat" file; false: no such process or thread */
bool tlm_oc_read_stat(const char *path, pid_t *pid, uint64_t *start);
/* Shortens @path to what it has in common with @other, whole names only */
void tlm_oc_keep_common(char *path, const char *other);
/* tlm_cgroup_dir(), with an error */
char *tlm_oc_cgroup_dir(const char *root, const char *controller, bool v2,
                        const char *path, GError **errp);

#endif
