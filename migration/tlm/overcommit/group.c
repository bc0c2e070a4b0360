/*
 * TLM: vCPU over-commit: makes and removes a cgroup
 *
 * On v2 the parent may first need the controller in cgroup.subtree_control.
 * Several processes in one cgroup may enable it at the same time, and the last
 * one must disable it.  The invariant for this: as long as TLM has a controller
 * enabled, each of TLM's cgroups below that parent has it in its name.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "../cgroup-dir.h"
#include "error.h"
#include "group.h"
#include "ops.h"
#include "proc.h"

#define PREFIX "tlm-"

/* A thread on its way out may keep a cgroup busy for a moment: 100 ms */
#define BUSY_TRIES 50
#define BUSY_WAIT_US 2000

char *tlm_oc_group_name(const char *proc, GError **errp)
{
    g_autofree char *path = g_build_filename(proc, "stat", NULL);
    uint64_t start;
    pid_t pid;

    if (!tlm_oc_read_stat(path, &pid, &start)) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "cannot read %s", path);
        return NULL;
    }
    return g_strdup_printf(PREFIX "%d-%" PRIu64, (int)pid, start);
}

/* The controller in the name of a cgroup of TLM ("": none); else NULL */
static const char *parse(const char *name, pid_t *pid, uint64_t *start)
{
    const char *p = name + strlen(PREFIX);
    guint64 value;
    char *end;

    if (!g_str_has_prefix(name, PREFIX) || !g_ascii_isdigit(*p)) {
        return NULL;
    }
    value = g_ascii_strtoull(p, &end, 10);
    if (!value || value > INT_MAX || *end != '-' || !g_ascii_isdigit(end[1])) {
        return NULL;
    }
    *pid = value;
    *start = g_ascii_strtoull(end + 1, &end, 10);
    if (!*end) {
        return end;
    }
    return !strcmp(end, "-cpuset") || !strcmp(end, "-cpu") ? end + 1 : NULL;
}

bool tlm_oc_group_parse(const char *name, pid_t *pid, uint64_t *start)
{
    return parse(name, pid, start);
}

/* Has @controller of cgroup @dir a setting other than the default? */
static bool is_set(const char *dir, const char *controller)
{
    static const char *const setting[][3] = {
        /* controller, file, default (the beginning of the text) */
        { "cpuset", "cpuset.cpus", NULL }, { "cpuset", "cpuset.mems", NULL },
        { "cpu", "cpu.max", "max" }, { "cpu", "cpu.weight", "100" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(setting); i++) {
        g_autofree char *now = strcmp(setting[i][0], controller) ? NULL :
                               tlm_oc_read(dir, setting[i][1], NULL);

        if (now && *now &&
            !(setting[i][2] && g_str_has_prefix(now, setting[i][2]))) {
            return true;
        }
    }
    return false;
}

/*
 * Counts the cgroups below @parent that need @controller: @ours have it in
 * their name, @others have a setting.
 */
static void count_users(const char *parent, const char *controller,
                        unsigned *ours, unsigned *others)
{
    g_autoptr(GDir) dir = g_dir_open(parent, 0, NULL);
    const char *name;

    *ours = *others = 0;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(parent, name, NULL);
        const char *has;
        uint64_t start;
        pid_t pid;

        if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
            continue;
        }
        has = parse(name, &pid, &start);
        if (has && !strcmp(has, controller)) {
            (*ours)++;
        } else if (is_set(path, controller)) {
            (*others)++;
        }
    }
}

/* Must @controller be enabled, or has another of TLM's cgroups enabled it? */
static bool must_enable(const char *parent, const char *controller, bool *must,
                        GError **errp)
{
    g_autofree char *has = tlm_oc_read(parent, "cgroup.controllers", errp);
    g_autofree char *on = NULL;
    unsigned ours, others;

    if (!has) {
        return false;
    }
    if (!tlm_has_word(has, controller)) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "controller %s is not available in %s", controller, parent);
        return false;
    }
    on = tlm_oc_read(parent, "cgroup.subtree_control", errp);
    if (!on) {
        return false;
    }
    count_users(parent, controller, &ours, &others);
    *must = ours || !tlm_has_word(on, controller);
    return true;
}

static bool make_threaded(const TlmOcSystem *sys, const char *dir,
                          GError **errp)
{
    g_autofree char *type = tlm_oc_read(dir, "cgroup.type", errp);

    return type && (!strcmp(type, "threaded") ||
                    tlm_oc_write(sys, dir, "cgroup.type", "threaded", errp));
}

bool tlm_oc_group_make(const TlmOcSystem *sys, const char *parent,
                       const char *name, const char *controller, bool v2,
                       char **group, GError **errp)
{
    g_autofree char *dir = NULL;
    bool enable = false;
    int ret;

    if (v2 && !must_enable(parent, controller, &enable, errp)) {
        return false;
    }
    dir = g_strconcat(parent, "/", name, enable ? "-" : NULL, controller,
                      NULL);
    ret = sys->ops->mkdir(dir, sys->opaque);
    if (ret && ret != -EEXIST) {
        return tlm_oc_failed(errp, ret, "making", dir);
    }
    *group = g_steal_pointer(&dir);
    if (v2 && !make_threaded(sys, *group, errp)) {
        return false;
    }
    if (enable) {
        g_autofree char *text = g_strconcat("+", controller, NULL);

        return tlm_oc_write(sys, parent, "cgroup.subtree_control", text,
                            errp);
    }
    return true;
}

/* Moves out of @dir the threads that a held thread has created */
static void move_strays(const TlmOcSystem *sys, const char *dir,
                        const char *parent)
{
    static const char *const files[] = { "cgroup.threads", "tasks" };

    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *text = tlm_oc_read(dir, files[i], NULL);
        g_auto(GStrv) tids = text ? g_strsplit(text, "\n", -1) : NULL;

        for (char **tid = tids; tid && *tid && **tid; tid++) {
            /* If this fails, rmdir fails as well, which is reported */
            tlm_oc_write(sys, parent, files[i], *tid, NULL);
        }
    }
}

/* Puts cgroup.subtree_control back after removing a cgroup of TLM */
static bool disable(const TlmOcSystem *sys, const char *parent,
                    const char *controller, GError **errp)
{
    g_autofree char *on = tlm_oc_read(parent, "cgroup.subtree_control", errp);
    g_autofree char *text = g_strconcat("-", controller, NULL);
    unsigned ours, others;

    if (!on) {
        return false;
    }
    count_users(parent, controller, &ours, &others);
    if (ours || !tlm_has_word(on, controller)) {
        return true;
    }
    if (others) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE,
                    "controller %s was left enabled for the children of %s: "
                    "others use it now", controller, parent);
        return false;
    }
    return tlm_oc_write(sys, parent, "cgroup.subtree_control", text,
                        errp);
}

bool tlm_oc_group_remove(const TlmOcSystem *sys, const char *dir,
                         GError **errp)
{
    g_autofree char *parent = g_path_get_dirname(dir);
    g_autofree char *name = g_path_get_basename(dir);
    const char *controller;
    uint64_t start;
    pid_t pid;
    int ret;

    for (int i = 0; ; i++) {
        move_strays(sys, dir, parent);
        ret = sys->ops->rmdir(dir, sys->opaque);
        if (ret != -EBUSY || i == BUSY_TRIES) {
            break;
        }
        g_usleep(BUSY_WAIT_US);
    }
    if (ret && ret != -ENOENT) {
        return tlm_oc_failed(errp, ret, "removing", dir);
    }
    controller = parse(name, &pid, &start);
    return !controller || !*controller ||
           disable(sys, parent, controller, errp);
}
