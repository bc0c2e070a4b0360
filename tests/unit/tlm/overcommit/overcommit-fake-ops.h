/*
 * The calls of the simulated kernel of overcommit-fake.h, and what tests need
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef OVERCOMMIT_FAKE_OPS_H
#define OVERCOMMIT_FAKE_OPS_H

#include "overcommit-fake.h"

/* Common to all calls: 0 to go on, or the error to return */
static int fake_call(Fake *f)
{
    f->calls++;
    if (f->calls == f->exit_at) {
        fake_find(f, f->exit_tid)->gone = true;
        fake_sync(f);
    }
    if (f->fail_at && (f->calls == f->fail_at ||
                       (f->fail_on && f->calls > f->fail_at))) {
        return f->error ? -f->error : -EACCES;
    }
    return 0;
}

static int fake_mkdir(const char *dir, void *opaque)
{
    Fake *f = opaque;
    g_autofree char *path = NULL;
    int ret = fake_call(f);

    if (ret || f->no_cgroup) {
        return ret ? ret : -EACCES;
    }
    if (g_file_test(dir, G_FILE_TEST_EXISTS)) {
        return -EEXIST;
    }
    fake_group(f, fake_hierarchy(f, dir, &path), dir);
    return 0;
}

static int fake_rmdir(const char *dir, void *opaque)
{
    Fake *f = opaque;
    g_autofree char *path = NULL;
    int hierarchy = fake_hierarchy(f, dir, &path);
    int ret = fake_call(f);

    if (ret) {
        return ret;
    }
    for (guint i = 0; i < f->threads->len; i++) {
        FakeThread *t = g_ptr_array_index(f->threads, i);

        if (!t->gone && !strcmp(t->path[hierarchy], path)) {
            return -EBUSY;
        }
    }
    fake_remove(dir, "");
    return rmdir(dir) ? -errno : 0;
}

static int fake_set_affinity(pid_t tid, const TlmCpuSet *cpus, void *opaque)
{
    Fake *f = opaque;
    int ret = fake_call(f), h = f->cpuset_v2 ? V2 : CPUSET;
    FakeThread *t = fake_find(f, tid);
    g_autofree char *dir = NULL;
    TlmCpuSet mask;

    if (ret || f->no_affinity) {
        return ret ? ret : -EPERM;
    }
    if (!t) {
        return -ESRCH;
    }
    dir = fake_dir(f, h, t->path[h]);
    fake_cpuset(f, dir, &mask);
    tlm_cpus_and(&mask, cpus);
    if (!tlm_cpus_count(&mask)) {
        return -EINVAL;
    }
    t->pinned = true;
    t->user = *cpus;
    fake_sync(f);
    return 0;
}

static int fake_enter(Fake *f, int h, const char *dir, const char *path,
                      int tid)
{
    FakeThread *t = fake_find(f, tid);
    g_autofree char *type = fake_get(dir, "cgroup.type");
    g_autofree char *cpus = fake_get(dir, "cpuset.cpus");
    g_autofree char *mems = fake_get(dir, "cpuset.mems");

    if (!t) {
        return -ESRCH;
    }
    if (h == V2 && strcmp(type, "threaded") &&
        !g_str_has_prefix(t->path[h], path)) {
        return -EOPNOTSUPP;
    }
    if (h == CPUSET && (!*cpus || !*mems)) {
        return -ENOSPC;
    }
    g_free(t->path[h]);
    t->path[h] = g_strdup(path);
    if (f->old_kernel && h != CPU) {
        t->pinned = false;
    }
    return 0;
}

static int fake_control(Fake *f, const char *dir, const char *text)
{
    g_autofree char *has = fake_get(dir, "cgroup.controllers");
    g_autofree char *on = fake_get(dir, "cgroup.subtree_control");
    g_auto(GStrv) words = g_strsplit(on, " ", -1);
    g_autoptr(GDir) children = g_dir_open(dir, 0, NULL);
    GString *now = g_string_new(NULL);
    const char *name;

    if (!tlm_has_word(has, text + 1)) {
        g_string_free(now, TRUE);
        return -ENOENT;
    }
    for (char **word = words; *word; word++) {
        if (**word && strcmp(*word, text + 1)) {
            g_string_append_printf(now, "%s%s", now->len ? " " : "", *word);
        }
    }
    if (*text == '+') {
        g_string_append_printf(now, "%s%s", now->len ? " " : "", text + 1);
    }
    fake_put(dir, "cgroup.subtree_control", "%s\n", now->str);
    g_string_free(now, TRUE);
    while ((name = g_dir_read_name(children))) {
        g_autofree char *child = g_build_filename(dir, name, NULL);

        if (g_file_test(child, G_FILE_TEST_IS_DIR)) {
            fake_v2_files(f, child);
        }
    }
    return 0;
}

static int fake_write(const char *path, const char *text, void *opaque)
{
    Fake *f = opaque;
    g_autofree char *dir = g_path_get_dirname(path);
    g_autofree char *file = g_path_get_basename(path);
    g_autofree char *group = NULL;
    int h = fake_hierarchy(f, dir, &group);
    int ret = fake_call(f);

    if (ret) {
        return ret;
    }
    if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        return -ENOENT;
    }
    if (!strcmp(file, "cgroup.threads") || !strcmp(file, "tasks")) {
        ret = fake_enter(f, h, dir, group, atoi(text));
    } else if (!strcmp(file, "cpuset.cpus")) {
        ret = fake_set_cpus(f, h, dir, text);
    } else if (!strcmp(file, "cgroup.subtree_control")) {
        ret = fake_control(f, dir, text);
    } else {
        fake_put(dir, file, "%s\n", text);
    }
    fake_sync(f);
    return ret;
}

static const TlmOcOps fake_ops = {
    .write = fake_write,
    .mkdir = fake_mkdir,
    .rmdir = fake_rmdir,
    .set_affinity = fake_set_affinity,
};

static void fake_list(const char *dir, GPtrArray *lines)
{
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(entries))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        g_autofree char *text = fake_get(dir, name);

        if (text) {
            g_ptr_array_add(lines, g_strdup_printf("%s: %s", path, text));
        } else {
            g_ptr_array_add(lines, g_strdup_printf("%s/", path));
            fake_list(path, lines);
        }
    }
}

static int fake_order(const void *a, const void *b)
{
    return strcmp(*(char **)a, *(char **)b);
}

/* All names and contents below the root: equal texts are equal states */
static GStrv fake_snapshot(Fake *f)
{
    GPtrArray *lines = g_ptr_array_new();

    fake_list(f->root, lines);
    for (guint i = 0; i < lines->len; i++) {
        char *line = g_ptr_array_index(lines, i);

        memmove(line, line + strlen(f->root),
                strlen(line) - strlen(f->root) + 1);
    }
    g_ptr_array_sort(lines, fake_order);
    g_ptr_array_add(lines, NULL);
    return (GStrv)g_ptr_array_free(lines, FALSE);
}

/* The state is as in snapshot @before; if not, says the first difference */
static void fake_check(Fake *f, GStrv before)
{
    g_auto(GStrv) now = fake_snapshot(f);

    for (int i = 0; before[i] || now[i]; i++) {
        if (g_strcmp0(before[i], now[i])) {
            g_error("'%s' instead of '%s'", now[i], before[i]);
        }
    }
}

static const pid_t tids[] = { 4001, 4002, 4003, 4004 };

static TlmOc *fake_oc(Fake *f, TlmOcMethod method, const char *cpus)
{
    TlmOcConfig cfg = {
        .method = method, .cpus = cpus, .root = f->root, .ops = &fake_ops,
        .opaque = f,
    };
    g_autoptr(GError) err = NULL;
    TlmOc *oc = tlm_oc_new(&cfg, &err);

    g_assert_no_error(err);
    return oc;
}

/*
 * Adds the threads @tids, two of them pinned, in cgroups of their own as
 * libvirt makes them or in that of the process.  @enabled: v2 has the
 * controllers enabled for them.
 */
static void fake_threads(Fake *f, bool own_cgroups, bool enabled)
{
    static const char *const pins[] = { NULL, "1", "2-3,6", NULL };
    g_autofree char *vm = fake_dir(f, V2, "/vm");

    if (enabled && f->cpuset_v2) {
        fake_put(vm, "cgroup.subtree_control", "cpuset cpu\n");
    }

    for (int i = 0; i < 4; i++) {
        g_autofree char *path = own_cgroups ?
                                g_strdup_printf("/vm/vcpu%d", i) :
                                g_strdup("/vm");

        for (int h = 0; own_cgroups && h < 3; h++) {
            g_autofree char *dir = fake_dir(f, h, path);

            fake_group(f, h, dir);
            if (h == V2) {
                fake_put(dir, "cgroup.type", "threaded\n");
                if (enabled && f->cpuset_v2) {
                    g_assert_cmpint(fake_set_cpus(f, h, dir, "1-6"), ==, 0);
                }
            }
            if (h == CPUSET) {
                g_assert_cmpint(fake_set_cpus(f, h, dir, "1-6"), ==, 0);
                fake_put(dir, "cpuset.mems", "0-1\n");
            }
        }
        fake_thread(f, tids[i], path, pins[i]);
    }
}

#endif /* OVERCOMMIT_FAKE_OPS_H */
