/*
 * TLM: vCPU over-commit by cgroups
 *
 * TLM moves the vCPU threads into one new cgroup below the nearest common
 * ancestor of their own cgroups (or below the delegated directory):
 *
 *  v2  a threaded child.  Threads cannot leave their threaded domain, and
 *      controllers of whole processes (memory, io) do not see the move.
 *  v1  a child in the cpuset (or cpu) hierarchy only; it gets the memory
 *      nodes that the threads had.
 *
 * A quota stops a thread anywhere, also while it holds a lock such as the BQL.
 * Then all threads that need the lock stop as well.  A cpuset does not do this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "../cgroup-dir.h"
#include "cgroup.h"
#include "error.h"
#include "group.h"
#include "stale.h"

/* A short period: a thread that holds a lock is not stopped for longer */
#define QUOTA_PERIOD_US 10000

static bool group_write(TlmOcHold *h, const char *file, const char *text,
                        GError **errp)
{
    return tlm_oc_write(&h->sys, h->group, file, text, errp);
}

static char *thread_path(TlmOcHold *h, const char *cgroups, GError **errp)
{
    char *path = tlm_cgroup_path(cgroups, h->backend->controller,
                                 h->backend->v2);

    if (!path) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "not in a cgroup %s hierarchy", h->backend->v2 ? "v2" :
                    h->backend->controller);
    }
    return path;
}

static char *thread_path_now(TlmOcHold *h, const TlmOcThread *t, GError **errp)
{
    g_autofree char *cgroups = tlm_oc_thread_cgroups(h->proc, t->tid, errp);

    return cgroups ? thread_path(h, cgroups, errp) : NULL;
}

static char *path_to_dir(TlmOcHold *h, const char *path, GError **errp)
{
    return tlm_oc_cgroup_dir(h->sys.root, h->backend->controller,
                             h->backend->v2, path, errp);
}

static char *find_parent(TlmOcHold *h, GError **errp)
{
    g_autofree char *common = NULL;

    if (h->cgroup) {
        g_autofree char *dir = g_strconcat(h->sys.root, h->cgroup, NULL);
        g_autofree char *v2 = g_build_filename(dir, "cgroup.controllers", NULL);

        if (g_file_test(v2, G_FILE_TEST_EXISTS) != h->backend->v2) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                        "%s is not a cgroup v%d directory", dir,
                        h->backend->v2 ? 2 : 1);
            return NULL;
        }
        return g_steal_pointer(&dir);
    }
    for (guint i = 0; i < h->threads->len; i++) {
        TlmOcThread *t = g_ptr_array_index(h->threads, i);
        g_autofree char *path = thread_path(h, t->cgroups, errp);

        if (!path) {
            return NULL;
        }
        if (common) {
            tlm_oc_keep_common(common, path);
        } else {
            common = g_steal_pointer(&path);
        }
    }
    return path_to_dir(h, common, errp);
}

/* The CPUs (or memory nodes) that cpuset @dir really has */
static bool read_effective(TlmOcHold *h, const char *dir, const char *what,
                           TlmCpuSet *set, GError **errp)
{
    g_autofree char *v1 = g_strconcat("cpuset.effective_", what, NULL);
    g_autofree char *v2 = g_strconcat("cpuset.", what, ".effective", NULL);
    g_autofree char *plain = g_strconcat("cpuset.", what, NULL);
    g_autofree char *list = tlm_oc_read(dir, h->backend->v2 ? v2 : v1, NULL);

    /* v1 has no effective_ files before Linux 3.17 */
    if (!list) {
        list = tlm_oc_read(dir, plain, errp);
    }
    return list && tlm_cpus_parse(list, set, errp);
}

/* A new v1 cpuset has no memory nodes, and takes no threads until it has */
static bool copy_mems(TlmOcHold *h, const char *parent, GError **errp)
{
    TlmCpuSet have, want = { 0 };
    g_autofree char *list = NULL;

    if (!read_effective(h, parent, "mems", &have, errp)) {
        return false;
    }
    for (guint i = 0; i < h->threads->len; i++) {
        TlmOcThread *t = g_ptr_array_index(h->threads, i);

        tlm_cpus_or(&want, &t->mems);
    }
    tlm_cpus_and(&want, &have);
    list = tlm_cpus_format(tlm_cpus_count(&want) ? &want : &have);
    return group_write(h, "cpuset.mems", list, errp);
}

static bool make_group(TlmOcHold *h, const char *parent, GError **errp)
{
    /* This comes first, as it may disable the controller */
    tlm_oc_clean_below(&h->sys, parent, NULL, h->stale);
    return tlm_oc_group_make(&h->sys, parent, h->name, h->backend->controller,
                             h->backend->v2, &h->group, errp);
}

static bool cpuset_open(TlmOcHold *h, GError **errp)
{
    g_autofree char *parent = find_parent(h, errp);

    return parent &&
           make_group(h, parent, errp) &&
           read_effective(h, parent, "cpus", &h->usable, errp) &&
           (h->backend->v2 || copy_mems(h, parent, errp));
}

static bool cpuset_limit(TlmOcHold *h, unsigned n, GError **errp)
{
    g_autofree char *want = tlm_cpus_format(&h->cpus);
    g_autofree char *is = NULL;
    TlmCpuSet now;

    if (!group_write(h, "cpuset.cpus", want, errp) ||
        !read_effective(h, h->group, "cpus", &now, errp)) {
        return false;
    }
    if (!tlm_cpus_equal(&now, &h->cpus)) {
        is = tlm_cpus_format(&now);
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "%s got CPUs %s instead of %s", h->group, is, want);
        return false;
    }
    return true;
}

static bool quota_open(TlmOcHold *h, GError **errp)
{
    g_autofree char *parent = find_parent(h, errp);

    return parent && make_group(h, parent, errp);
}

static bool quota_limit(TlmOcHold *h, unsigned n, GError **errp)
{
    g_autofree char *period = g_strdup_printf("%d", QUOTA_PERIOD_US);
    g_autofree char *quota = g_strdup_printf("%" PRIu64, (uint64_t)n *
                                             QUOTA_PERIOD_US);
    g_autofree char *max = g_strdup_printf("%s %s", quota, period);

    if (h->backend->v2) {
        return group_write(h, "cpu.max", max, errp);
    }
    return group_write(h, "cpu.cfs_period_us", period, errp) &&
           group_write(h, "cpu.cfs_quota_us", quota, errp);
}

static bool group_take(TlmOcHold *h, TlmOcThread *t, GError **errp)
{
    g_autofree char *tid = g_strdup_printf("%d", (int)t->tid);

    return group_write(h, h->backend->threads, tid, errp);
}

static bool group_put_back(TlmOcHold *h, TlmOcThread *t, GError **errp)
{
    g_autofree char *tid = g_strdup_printf("%d", (int)t->tid);
    g_autofree char *home = thread_path(h, t->cgroups, errp);
    g_autofree char *path = home ? thread_path_now(h, t, errp) : NULL;
    g_autofree char *dir = NULL, *name = NULL, *ours = NULL;

    if (!path) {
        return false;
    }
    if (!strcmp(path, home)) {
        return true;
    }
    name = g_path_get_basename(path);
    ours = g_path_get_basename(h->group);
    if (strcmp(name, ours)) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE,
                    "thread %s was moved to cgroup %s by someone else; before "
                    "it was in %s", tid, path, home);
        t->taken = false;
        return false;
    }
    dir = path_to_dir(h, home, errp);
    if (!dir ||
        !tlm_oc_write(&h->sys, dir, h->backend->threads, tid, errp)) {
        /* Somebody else removed it: group_close() moves the thread out */
        t->taken = dir && g_file_test(dir, G_FILE_TEST_IS_DIR);
        return false;
    }
    g_free(path);
    path = thread_path_now(h, t, errp);
    if (path && strcmp(path, home)) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE,
                    "thread %s is in cgroup %s, before in %s", tid, path, home);
        return false;
    }
    return path;
}

static bool group_close(TlmOcHold *h, GError **errp)
{
    GError *err = NULL;

    if (h->group &&
        !tlm_oc_group_remove(&h->sys, h->group, &err) &&
        err->code != TLM_OC_ERROR_RESTORE) {
        /* Kept for another try */
        g_propagate_error(errp, err);
        return false;
    }
    g_clear_pointer(&h->group, g_free);
    if (err) {
        g_propagate_error(errp, err);
        return false;
    }
    return true;
}

#define CPUSET .controller = "cpuset", \
               .open = cpuset_open, .limit = cpuset_limit
#define QUOTA  .controller = "cpu", .quota = true, \
               .open = quota_open, .limit = quota_limit
#define V1     .threads = "tasks"
#define V2     .v2 = true, .threads = "cgroup.threads"
#define GROUP  .take = group_take, .put_back = group_put_back, \
               .close = group_close

const TlmOcBackend tlm_oc_cgroup_v2_cpuset = {
    .name = "cgroup-v2-cpuset", CPUSET, V2, GROUP
};
const TlmOcBackend tlm_oc_cgroup_v1_cpuset = {
    .name = "cgroup-v1-cpuset", CPUSET, V1, GROUP
};
const TlmOcBackend tlm_oc_cgroup_v2_quota = {
    .name = "cgroup-v2-quota", QUOTA, V2, GROUP
};
const TlmOcBackend tlm_oc_cgroup_v1_quota = {
    .name = "cgroup-v1-quota", QUOTA, V1, GROUP
};
