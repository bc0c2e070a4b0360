/*
 * TLM: vCPU over-commit by cgroups
 *
 * The vCPU threads are moved into one new cgroup below the nearest common
 * ancestor of their own cgroups (or below the delegated directory):
 *
 *  v2  a threaded child.  Threads cannot leave their threaded domain, and
 *      controllers of whole processes (memory, io) do not see the move.
 *  v1  a child in the cpuset (or cpu) hierarchy only; it gets the memory
 *      nodes that the threads had.
 *
 * A quota stops a thread anywhere, also while it holds a lock such as the
 * BQL, which then stops everybody; a cpuset does not.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "overcommit-int.h"

/* A short period: a thread that holds a lock is not stopped for longer */
#define QUOTA_PERIOD_US 10000

static bool group_write(TlmOc *oc, const char *file, const char *text,
                        GError **errp)
{
    return tlm_oc_write(oc->ops, oc->opaque, oc->group, file, text, errp);
}

static char *thread_path(TlmOc *oc, const char *cgroups, GError **errp)
{
    char *path = tlm_oc_cgroup_path(cgroups, oc->backend->controller,
                                    oc->backend->v2);

    if (!path) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "not in a cgroup %s hierarchy", oc->backend->v2 ? "v2" :
                    oc->backend->controller);
    }
    return path;
}

static char *thread_path_now(TlmOc *oc, const TlmOcThread *t, GError **errp)
{
    g_autofree char *cgroups = tlm_oc_thread_cgroups(oc, t->tid, errp);

    return cgroups ? thread_path(oc, cgroups, errp) : NULL;
}

static char *path_to_dir(TlmOc *oc, const char *path, GError **errp)
{
    return tlm_oc_cgroup_dir(oc->root, oc->backend->controller,
                             oc->backend->v2, path, errp);
}

static char *find_parent(TlmOc *oc, GError **errp)
{
    g_autofree char *common = NULL;

    if (oc->cgroup) {
        g_autofree char *dir = g_strconcat(oc->root, oc->cgroup, NULL);
        g_autofree char *v2 = g_build_filename(dir, "cgroup.controllers", NULL);

        if (g_file_test(v2, G_FILE_TEST_EXISTS) != oc->backend->v2) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                        "%s is not a cgroup v%d directory", dir,
                        oc->backend->v2 ? 2 : 1);
            return NULL;
        }
        return g_steal_pointer(&dir);
    }
    for (guint i = 0; i < oc->threads->len; i++) {
        TlmOcThread *t = g_ptr_array_index(oc->threads, i);
        g_autofree char *path = thread_path(oc, t->cgroups, errp);

        if (!path) {
            return NULL;
        }
        if (common) {
            tlm_oc_keep_common(common, path);
        } else {
            common = g_steal_pointer(&path);
        }
    }
    return path_to_dir(oc, common, errp);
}

/* The CPUs (or memory nodes) that cpuset @dir really has */
static bool read_effective(TlmOc *oc, const char *dir, const char *what,
                           TlmCpuSet *set, GError **errp)
{
    g_autofree char *v1 = g_strconcat("cpuset.effective_", what, NULL);
    g_autofree char *v2 = g_strconcat("cpuset.", what, ".effective", NULL);
    g_autofree char *plain = g_strconcat("cpuset.", what, NULL);
    g_autofree char *list = tlm_oc_read(dir, oc->backend->v2 ? v2 : v1, NULL);

    /* v1 has no effective_ files before Linux 3.17 */
    if (!list) {
        list = tlm_oc_read(dir, plain, errp);
    }
    return list && tlm_cpus_parse(list, set, errp);
}

/* A new v1 cpuset has no memory nodes, and takes no threads until it has */
static bool copy_mems(TlmOc *oc, const char *parent, GError **errp)
{
    TlmCpuSet have, want = { 0 };
    g_autofree char *list = NULL;

    if (!read_effective(oc, parent, "mems", &have, errp)) {
        return false;
    }
    for (guint i = 0; i < oc->threads->len; i++) {
        TlmOcThread *t = g_ptr_array_index(oc->threads, i);

        tlm_cpus_or(&want, &t->mems);
    }
    tlm_cpus_and(&want, &have);
    list = tlm_cpus_format(tlm_cpus_count(&want) ? &want : &have);
    return group_write(oc, "cpuset.mems", list, errp);
}

static bool cpuset_open(TlmOc *oc, GError **errp)
{
    g_autofree char *parent = find_parent(oc, errp);

    return parent &&
           tlm_oc_group_make(oc, parent, errp) &&
           read_effective(oc, parent, "cpus", &oc->usable, errp) &&
           (oc->backend->v2 || copy_mems(oc, parent, errp));
}

static bool cpuset_limit(TlmOc *oc, unsigned n, GError **errp)
{
    g_autofree char *want = tlm_cpus_format(&oc->cpus);
    g_autofree char *is = NULL;
    TlmCpuSet now;

    if (!group_write(oc, "cpuset.cpus", want, errp) ||
        !read_effective(oc, oc->group, "cpus", &now, errp)) {
        return false;
    }
    if (!tlm_cpus_equal(&now, &oc->cpus)) {
        is = tlm_cpus_format(&now);
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "%s got CPUs %s instead of %s", oc->group, is, want);
        return false;
    }
    return true;
}

static bool quota_open(TlmOc *oc, GError **errp)
{
    g_autofree char *parent = find_parent(oc, errp);

    return parent && tlm_oc_group_make(oc, parent, errp);
}

static bool quota_limit(TlmOc *oc, unsigned n, GError **errp)
{
    g_autofree char *period = g_strdup_printf("%d", QUOTA_PERIOD_US);
    g_autofree char *quota = g_strdup_printf("%" PRIu64, (uint64_t)n *
                                             QUOTA_PERIOD_US);
    g_autofree char *max = g_strdup_printf("%s %s", quota, period);

    if (oc->backend->v2) {
        return group_write(oc, "cpu.max", max, errp);
    }
    return group_write(oc, "cpu.cfs_period_us", period, errp) &&
           group_write(oc, "cpu.cfs_quota_us", quota, errp);
}

static bool group_take(TlmOc *oc, TlmOcThread *t, GError **errp)
{
    g_autofree char *tid = g_strdup_printf("%d", (int)t->tid);

    return group_write(oc, oc->backend->threads, tid, errp);
}

static bool group_put_back(TlmOc *oc, TlmOcThread *t, GError **errp)
{
    g_autofree char *tid = g_strdup_printf("%d", (int)t->tid);
    g_autofree char *home = thread_path(oc, t->cgroups, errp);
    g_autofree char *path = home ? thread_path_now(oc, t, errp) : NULL;
    g_autofree char *dir = NULL, *name = NULL, *ours = NULL;

    if (!path) {
        return false;
    }
    if (!strcmp(path, home)) {
        return true;
    }
    name = g_path_get_basename(path);
    ours = g_path_get_basename(oc->group);
    if (strcmp(name, ours)) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE,
                    "thread %s was moved to cgroup %s by someone else; before "
                    "it was in %s", tid, path, home);
        t->taken = false;
        return false;
    }
    dir = path_to_dir(oc, home, errp);
    if (!dir ||
        !tlm_oc_write(oc->ops, oc->opaque, dir, oc->backend->threads, tid,
                      errp)) {
        /* Removed by someone else: group_close() moves the thread out */
        t->taken = dir && g_file_test(dir, G_FILE_TEST_IS_DIR);
        return false;
    }
    g_free(path);
    path = thread_path_now(oc, t, errp);
    if (path && strcmp(path, home)) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE,
                    "thread %s is in cgroup %s, before in %s", tid, path, home);
        return false;
    }
    return path;
}

static bool group_close(TlmOc *oc, GError **errp)
{
    GError *err = NULL;

    if (oc->group &&
        !tlm_oc_group_remove(oc->ops, oc->opaque, oc->group, &err) &&
        err->code != TLM_OC_ERROR_RESTORE) {
        /* Kept for another try */
        g_propagate_error(errp, err);
        return false;
    }
    g_clear_pointer(&oc->group, g_free);
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
