/*
 * TLM: vCPU over-commit: removing cgroups of processes that were killed
 *
 * A process id alone may have been reused: the start time tells.  Ids of
 * another pid namespace look gone although they are not; but the kernel
 * refuses to remove a cgroup with threads in it, and the threads are moved
 * out only if their process is gone, so a cgroup in use survives.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "overcommit-int.h"

typedef struct Cleanup {
    const char *root;
    const TlmOcOps *ops;
    void *opaque;
    GPtrArray *removed;
    GString *errors;
} Cleanup;

static bool process_exists(const char *root, pid_t pid, uint64_t start)
{
    g_autofree char *path = g_strdup_printf("%s/proc/%d/stat", root, (int)pid);
    uint64_t now;

    return tlm_oc_read_stat(path, NULL, &now) && now == start;
}

static bool has_threads(const char *dir)
{
    g_autofree char *v2 = tlm_oc_read(dir, "cgroup.threads", NULL);
    g_autofree char *v1 = v2 ? NULL : tlm_oc_read(dir, "tasks", NULL);

    return (v2 && *v2) || (v1 && *v1);
}

static void clean_one(Cleanup *c, const char *path)
{
    g_autoptr(GError) err = NULL;

    if (has_threads(path)) {
        g_string_append_printf(c->errors, "%s%s has threads in it, but no "
                               "process of its name exists",
                               c->errors->len ? "; " : "", path);
    } else if (!tlm_oc_group_remove(c->ops, c->opaque, path, &err)) {
        g_string_append_printf(c->errors, "%s%s",
                               c->errors->len ? "; " : "", err->message);
    } else if (c->removed) {
        g_ptr_array_add(c->removed, g_strdup(path));
    }
}

static void clean_below(Cleanup *c, const char *parent)
{
    g_autoptr(GDir) dir = g_dir_open(parent, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(parent, name, NULL);
        uint64_t start;
        pid_t pid;

        if (tlm_oc_group_parse(name, &pid, &start) &&
            g_file_test(path, G_FILE_TEST_IS_DIR) &&
            !process_exists(c->root, pid, start)) {
            clean_one(c, path);
        }
    }
}

static void clean_own(Cleanup *c, const char *cgroups, const char *controller,
                      bool v2)
{
    g_autofree char *path = tlm_oc_cgroup_path(cgroups, controller, v2);
    g_autofree char *dir = NULL;

    if (path) {
        dir = tlm_oc_cgroup_dir(c->root, controller, v2, path, NULL);
    }
    if (dir) {
        clean_below(c, dir);
    }
}

bool tlm_oc_cleanup_stale(const TlmOcConfig *cfg, GPtrArray *removed,
                          GError **errp)
{
    Cleanup c = {
        .root = cfg->root ?: "",
        .ops = cfg->ops ?: &tlm_oc_real_ops,
        .opaque = cfg->opaque,
        .removed = removed,
        .errors = g_string_new(NULL),
    };
    g_autofree char *errors = NULL;

    if (cfg->cgroup) {
        g_autofree char *dir = g_strconcat(c.root, cfg->cgroup, NULL);

        clean_below(&c, dir);
    } else {
        g_autofree char *self = g_strconcat(c.root, "/proc/self", NULL);
        g_autofree char *text = tlm_oc_read(self, "cgroup", NULL);

        /* No such file: a kernel without cgroups, nothing can be left */
        if (text) {
            clean_own(&c, text, NULL, true);
            clean_own(&c, text, "cpuset", false);
            clean_own(&c, text, "cpu", false);
        }
    }
    errors = g_string_free(c.errors, FALSE);
    if (*errors) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE, "%s", errors);
        return false;
    }
    return true;
}
