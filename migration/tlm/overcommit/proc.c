/*
 * TLM: vCPU over-commit: reads about threads in /proc
 *
 * Affinity is read from /proc, not by sched_getaffinity.  So the number of CPUs
 * has no limit, and a seccomp filter cannot block the call.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "../cgroup-dir.h"
#include "error.h"
#include "ops.h"
#include "proc.h"

static char *thread_dir(const char *proc, pid_t tid)
{
    return g_strdup_printf("%s/task/%d", proc, (int)tid);
}

bool tlm_oc_read_stat(const char *path, pid_t *pid, uint64_t *start)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) fields = NULL;
    char *comm_end;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return false;
    }
    /* "PID (COMM) STATE ...": COMM may hold anything, also ") " */
    comm_end = strrchr(text, ')');
    if (!comm_end || !comm_end[1]) {
        return false;
    }
    /* STATE is field 3 of proc(5), the start time field 22 */
    fields = g_strsplit(comm_end + 2, " ", -1);
    if (g_strv_length(fields) < 22 - 3 + 1) {
        return false;
    }
    if (pid) {
        *pid = g_ascii_strtoll(text, NULL, 10);
    }
    *start = g_ascii_strtoull(fields[22 - 3], NULL, 10);
    return true;
}

static bool thread_start(const char *proc, pid_t tid, uint64_t *start)
{
    g_autofree char *dir = thread_dir(proc, tid);
    g_autofree char *path = g_build_filename(dir, "stat", NULL);

    return tlm_oc_read_stat(path, NULL, start);
}

static bool parse_list(const char *status, const char *key, TlmCpuSet *set,
                       GError **errp)
{
    const char *p = strstr(status, key);
    g_autofree char *list = NULL;

    if (!p) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "no %s in the thread's status file", key + 1);
        return false;
    }
    p += strlen(key);
    list = g_strndup(p, strcspn(p, "\n"));
    return tlm_cpus_parse(list, set, errp);
}

bool tlm_oc_thread_mask(const char *proc, pid_t tid, TlmCpuSet *mask,
                        TlmCpuSet *mems, GError **errp)
{
    g_autofree char *dir = thread_dir(proc, tid);
    g_autofree char *status = tlm_oc_read(dir, "status", errp);

    return status &&
           parse_list(status, "\nCpus_allowed_list:", mask, errp) &&
           (!mems || parse_list(status, "\nMems_allowed_list:", mems, errp));
}

char *tlm_oc_thread_cgroups(const char *proc, pid_t tid, GError **errp)
{
    g_autofree char *dir = thread_dir(proc, tid);

    return tlm_oc_read(dir, "cgroup", errp);
}

TlmOcThread *tlm_oc_thread_save(const char *proc, pid_t tid, GError **errp)
{
    TlmOcThread *t = g_new0(TlmOcThread, 1);
    g_autoptr(GError) err = NULL;
    uint64_t start;

    t->tid = tid;
    if (thread_start(proc, tid, &t->start)) {
        t->cgroups = tlm_oc_thread_cgroups(proc, tid, &err);
        if (t->cgroups &&
            tlm_oc_thread_mask(proc, tid, &t->mask, &t->mems, &err)) {
            return t;
        }
        /* If the thread has ended between the reads, this is no error */
        if (thread_start(proc, tid, &start) && start == t->start) {
            g_propagate_error(errp, g_steal_pointer(&err));
        }
    }
    tlm_oc_thread_free(t);
    return NULL;
}

void tlm_oc_thread_free(TlmOcThread *t)
{
    g_free(t->cgroups);
    g_free(t);
}

bool tlm_oc_thread_alive(const char *proc, const TlmOcThread *t)
{
    uint64_t start;

    return thread_start(proc, t->tid, &start) && start == t->start;
}

void tlm_oc_keep_common(char *path, const char *other)
{
    size_t same = 0, i = 0;

    while (path[i] && path[i] == other[i]) {
        i++;
        if ((!path[i] || path[i] == '/') && (!other[i] || other[i] == '/')) {
            same = i;
        }
    }
    path[same] = 0;
    if (!same) {
        strcpy(path, "/");
    }
}

char *tlm_oc_cgroup_dir(const char *root, const char *controller, bool v2,
                        const char *path, GError **errp)
{
    char *dir = tlm_cgroup_dir(root, controller, v2, path);

    if (!dir) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "no mounted %s hierarchy shows cgroup %s",
                    v2 ? "cgroup2" : controller, path);
    }
    return dir;
}
