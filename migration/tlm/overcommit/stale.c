/*
 * TLM: vCPU over-commit: removes cgroups of processes that were killed
 *
 * A process id may have been reused, so the start time is compared, too.  Ids
 * of another pid namespace look gone although they are not.  But the kernel
 * refuses to remove a cgroup with threads in it, and TLM moves threads out only
 * if their process is gone.  So a cgroup in use survives.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "../cgroup-dir.h"
#include "error.h"
#include "group.h"
#include "proc.h"
#include "stale.h"

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

static bool clean_one(const TlmOcSystem *sys, const char *path,
                      GString *errors)
{
    g_autoptr(GError) err = NULL;

    if (has_threads(path)) {
        g_autofree char *text = g_strconcat(path, " has threads in it, but no "
                                            "process of its name exists",
                                            NULL);

        tlm_oc_add_message(errors, NULL, text);
        return false;
    }
    if (!tlm_oc_group_remove(sys, path, &err)) {
        tlm_oc_add_message(errors, NULL, err->message);
        return false;
    }
    return true;
}

void tlm_oc_clean_below(const TlmOcSystem *sys, const char *parent,
                        GPtrArray *removed, GString *errors)
{
    g_autoptr(GDir) dir = g_dir_open(parent, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(parent, name, NULL);
        uint64_t start;
        pid_t pid;

        if (tlm_oc_group_parse(name, &pid, &start) &&
            g_file_test(path, G_FILE_TEST_IS_DIR) &&
            !process_exists(sys->root, pid, start) &&
            clean_one(sys, path, errors) && removed) {
            g_ptr_array_add(removed, g_strdup(path));
        }
    }
}

/*
 * Adds two cgroups of a hierarchy: that of the process's main thread, and the
 * nearest common ancestor of those of all its threads.  Managers may keep each
 * thread in a cgroup of its own.
 */
static void add_dirs(const char *root, const char *controller, bool v2,
                     GPtrArray *dirs)
{
    g_autofree char *self = g_strconcat(root, "/proc/self", NULL);
    g_autofree char *task = g_build_filename(self, "task", NULL);
    g_autoptr(GDir) tids = g_dir_open(task, 0, NULL);
    g_autofree char *text = tlm_oc_read(self, "cgroup", NULL);
    g_autofree char *own = text ? tlm_cgroup_path(text, controller, v2)
                                : NULL;
    g_autofree char *common = g_strdup(own);
    const char *paths[] = { own, NULL };
    const char *tid;

    while (own && tids && (tid = g_dir_read_name(tids))) {
        g_autofree char *dir = g_build_filename(task, tid, NULL);
        g_autofree char *its = tlm_oc_read(dir, "cgroup", NULL);
        g_autofree char *path = its ? tlm_cgroup_path(its, controller, v2)
                                    : NULL;

        /* It may have ended by now */
        if (path) {
            tlm_oc_keep_common(common, path);
        }
    }
    paths[1] = g_strcmp0(common, own) ? common : NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(paths) && paths[i]; i++) {
        char *dir = tlm_oc_cgroup_dir(root, controller, v2, paths[i], NULL);

        if (dir) {
            g_ptr_array_add(dirs, dir);
        }
    }
}

void tlm_oc_clean_own(const TlmOcSystem *sys, GPtrArray *removed,
                      GString *errors)
{
    g_autoptr(GPtrArray) dirs = g_ptr_array_new_with_free_func(g_free);

    add_dirs(sys->root, NULL, true, dirs);
    add_dirs(sys->root, "cpuset", false, dirs);
    add_dirs(sys->root, "cpu", false, dirs);
    for (guint i = 0; i < dirs->len; i++) {
        tlm_oc_clean_below(sys, g_ptr_array_index(dirs, i), removed, errors);
    }
}
