/*
 * A simulated kernel for test-overcommit.c: threads, cpusets (v1 or v2), the
 * cpu controller and affinity as files below a temporary directory.
 *
 * It keeps the rules of the kernel that the tested code depends on: threads
 * may enter threaded children and their parent only (v2), a v1 cpuset takes
 * none before it has CPUs and memory nodes, a cgroup with threads cannot be
 * removed, a mask that was asked for survives a cpuset change if the two have
 * a CPU in common (or, @old_kernel, never).  Any call can be made to fail.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef OVERCOMMIT_FAKE_H
#define OVERCOMMIT_FAKE_H

#include "cgroup-dir.h"
#include "overcommit/overcommit-int.h"

#define FAKE_PID 4000
#define FAKE_CPUS "0-7"

typedef struct FakeThread {
    pid_t tid;
    bool gone;
    unsigned start;
    bool pinned;
    TlmCpuSet user;         /* the mask it asked for, if pinned */
    char *path[3];          /* its cgroup in each hierarchy */
} FakeThread;

typedef struct Fake {
    char *root;
    bool cpuset_v2;         /* else on v1 */
    bool old_kernel;
    GPtrArray *threads;
    int calls;              /* made so far */
    int fail_at;            /* this call fails (1: the first); 0: none */
    bool fail_on;           /* and so do all later ones */
    int error;              /* with this */
    bool no_cgroup;         /* making cgroups fails */
    bool no_affinity;       /* sched_setaffinity fails */
    int exit_at;            /* before this call thread @exit_tid ends */
    pid_t exit_tid;
} Fake;

enum { V2, CPUSET, CPU };
static const char *const fake_mount[] = {
    "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/cpu"
};

static void G_GNUC_PRINTF(3, 4)
fake_put(const char *dir, const char *file, const char *format, ...)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    g_autofree char *text = NULL;
    va_list ap;
    FILE *out;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    /* Neither g_file_set_contents() nor truncating: they wait for the disk */
    unlink(path);
    out = fopen(path, "w");
    if (!out) {
        g_assert_cmpint(g_mkdir_with_parents(dir, 0755), ==, 0);
        out = fopen(path, "w");
    }
    g_assert_cmpint(fputs(text, out), >=, 0);
    g_assert_cmpint(fclose(out), ==, 0);
}

static char *fake_get(const char *dir, const char *file)
{
    return tlm_oc_read(dir, file, NULL);
}

/* Removes the files in @dir whose names begin with @prefix, below it too */
static void fake_remove(const char *dir, const char *prefix)
{
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    const char *name;

    while (entries && (name = g_dir_read_name(entries))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);

        if (!g_str_has_prefix(name, prefix)) {
            continue;
        }
        if (unlink(path)) {
            fake_remove(path, prefix);
            g_assert_cmpint(rmdir(path), ==, 0);
        }
    }
}

static char *fake_dir(Fake *f, int hierarchy, const char *path)
{
    return g_strconcat(f->root, fake_mount[hierarchy],
                       strcmp(path, "/") ? path : "", NULL);
}

/* The CPUs of cpuset @dir */
static void fake_cpuset(Fake *f, const char *dir, TlmCpuSet *cpus)
{
    g_autofree char *list = fake_get(dir, f->cpuset_v2 ?
                                     "cpuset.cpus.effective" :
                                     "cpuset.effective_cpus");
    g_autofree char *up = g_path_get_dirname(dir);

    if (list) {
        g_assert_true(tlm_cpus_parse(list, cpus, NULL));
    } else {
        fake_cpuset(f, up, cpus);
    }
}

/* Writes the lists of threads of cgroup @path and those below */
static void fake_tasks(Fake *f, int h, const char *path)
{
    g_autofree char *dir = fake_dir(f, h, path);
    g_autoptr(GDir) children = g_dir_open(dir, 0, NULL);
    g_autoptr(GString) list = g_string_new(NULL);
    const char *name;

    for (guint i = 0; i < f->threads->len; i++) {
        FakeThread *t = g_ptr_array_index(f->threads, i);

        if (!t->gone && !strcmp(t->path[h], path)) {
            g_string_append_printf(list, "%d\n", t->tid);
        }
    }
    fake_put(dir, h == V2 ? "cgroup.threads" : "tasks", "%s", list->str);
    while ((name = g_dir_read_name(children))) {
        g_autofree char *sub = g_build_filename(path, name, NULL);
        g_autofree char *child = fake_dir(f, h, sub);

        if (g_file_test(child, G_FILE_TEST_IS_DIR)) {
            fake_tasks(f, h, sub);
        }
    }
}

/* Writes what /proc and the lists of threads show */
static void fake_sync(Fake *f)
{
    for (guint i = 0; i < f->threads->len; i++) {
        FakeThread *t = g_ptr_array_index(f->threads, i);
        g_autofree char *dir = g_strdup_printf("%s/proc/%d/task/%d", f->root,
                                               FAKE_PID, t->tid);
        g_autofree char *set = fake_dir(f, f->cpuset_v2 ? V2 : CPUSET,
                                        t->path[f->cpuset_v2 ? V2 : CPUSET]);
        g_autofree char *list = NULL;
        TlmCpuSet mask, user = t->user;

        if (t->gone) {
            fake_remove(dir, "");
            rmdir(dir);
            continue;
        }
        fake_cpuset(f, set, &mask);
        tlm_cpus_and(&user, &mask);
        if (t->pinned && tlm_cpus_count(&user)) {
            mask = user;
        }
        list = tlm_cpus_format(&mask);
        /* A name that looks like the end of the name field */
        fake_put(dir, "stat", "%d (CPU 0/T) S 1) R 1 1 1 0 -1 0 0 0 0 0 0 0 0 "
                 "0 20 0 1 0 %u 0 0\n", t->tid, t->start);
        fake_put(dir, "status", "Name:\tx\nCpus_allowed:\tff\n"
                 "Cpus_allowed_list:\t%s\nMems_allowed_list:\t0-1\n", list);
        fake_put(dir, "cgroup", "2:%s:%s\n1:cpu,cpuacct:%s\n0::%s\n",
                 f->cpuset_v2 ? "name=systemd" : "cpuset", t->path[CPUSET],
                 t->path[CPU], t->path[V2]);
    }
    for (int h = 0; h < 3; h++) {
        fake_tasks(f, h, "/");
    }
}

static FakeThread *fake_find(Fake *f, int tid)
{
    for (guint i = 0; i < f->threads->len; i++) {
        FakeThread *t = g_ptr_array_index(f->threads, i);

        if (t->tid == tid && !t->gone) {
            return t;
        }
    }
    return NULL;
}

/* Adds thread @tid in cgroup @path, pinned to @pin if not NULL */
static void fake_thread(Fake *f, pid_t tid, const char *path, const char *pin)
{
    FakeThread *t = g_new0(FakeThread, 1);

    t->tid = tid;
    t->start = 1000 + f->threads->len;
    for (int h = 0; h < 3; h++) {
        t->path[h] = g_strdup(path);
    }
    if (pin) {
        t->pinned = true;
        g_assert_true(tlm_cpus_parse(pin, &t->user, NULL));
    }
    g_ptr_array_add(f->threads, t);
    fake_sync(f);
}

static void fake_thread_free(gpointer opaque)
{
    FakeThread *t = opaque;

    for (int h = 0; h < 3; h++) {
        g_free(t->path[h]);
    }
    g_free(t);
}

/* The files that controllers enabled in the parent give a v2 cgroup */
static void fake_v2_files(Fake *f, const char *dir)
{
    g_autofree char *up = g_path_get_dirname(dir);
    g_autofree char *on = fake_get(up, "cgroup.subtree_control");
    g_autofree char *old = fake_get(dir, "cpuset.cpus");
    g_autofree char *max = fake_get(dir, "cpu.max");
    TlmCpuSet cpus;

    fake_put(dir, "cgroup.controllers", "%s\n", on);
    if (!tlm_has_word(on, "cpuset")) {
        fake_remove(dir, "cpuset.");
    } else if (!old) {
        g_autofree char *list = NULL;

        fake_cpuset(f, up, &cpus);
        list = tlm_cpus_format(&cpus);
        fake_put(dir, "cpuset.cpus", "\n");
        fake_put(dir, "cpuset.cpus.effective", "%s\n", list);
    }
    if (!tlm_has_word(on, "cpu")) {
        fake_remove(dir, "cpu.");
    } else if (!max) {
        fake_put(dir, "cpu.max", "max 100000\n");
    }
}

/* Makes cgroup @dir with the kernel's files in it */
static void fake_group(Fake *f, int hierarchy, const char *dir)
{
    g_assert_cmpint(g_mkdir_with_parents(dir, 0755), ==, 0);
    if (hierarchy == V2) {
        fake_put(dir, "cgroup.type", "domain\n");
        fake_put(dir, "cgroup.threads", "%s", "");
        fake_put(dir, "cgroup.subtree_control", "\n");
        fake_v2_files(f, dir);
        return;
    }
    fake_put(dir, "tasks", "%s", "");
    if (hierarchy == CPUSET) {
        fake_put(dir, "cpuset.cpus", "\n");
        fake_put(dir, "cpuset.effective_cpus", "\n");
        fake_put(dir, "cpuset.mems", "\n");
        fake_put(dir, "cpuset.effective_mems", "\n");
    } else {
        fake_put(dir, "cpu.cfs_period_us", "100000\n");
        fake_put(dir, "cpu.cfs_quota_us", "-1\n");
    }
}

/* Which hierarchy @dir lies in, and its cgroup path */
static int fake_hierarchy(Fake *f, const char *dir, char **path)
{
    for (int h = 0; h < 3; h++) {
        g_autofree char *top = fake_dir(f, h, "/");

        if (g_str_has_prefix(dir, top)) {
            *path = g_strdup(dir[strlen(top)] ? dir + strlen(top) : "/");
            return h;
        }
    }
    g_assert_not_reached();
}

static int fake_set_cpus(Fake *f, int h, const char *dir, const char *text)
{
    g_autofree char *up = g_path_get_dirname(dir), *list = NULL;
    TlmCpuSet cpus, parent;

    if (!tlm_cpus_parse(text, &cpus, NULL)) {
        return -EINVAL;
    }
    fake_cpuset(f, up, &parent);
    if (h == CPUSET && !tlm_cpus_subset(&cpus, &parent)) {
        return -EACCES;
    }
    tlm_cpus_and(&cpus, &parent);
    list = tlm_cpus_format(tlm_cpus_count(&cpus) ? &cpus : &parent);
    fake_put(dir, "cpuset.cpus", "%s\n", text);
    fake_put(dir, h == V2 ? "cpuset.cpus.effective" : "cpuset.effective_cpus",
             "%s\n", list);
    return 0;
}

/* 8 CPUs in two NUMA nodes; cgroup /vm may use CPUs @vm_cpus */
static Fake *fake_new(bool cpuset_v2, const char *vm_cpus)
{
    Fake *f = g_new0(Fake, 1);
    g_autofree char *proc = NULL, *node0 = NULL, *node1 = NULL, *self = NULL;

    f->root = g_strdup("/dev/shm/tlm-overcommit-XXXXXX");
    if (!g_mkdtemp(f->root)) {
        g_free(f->root);
        f->root = g_dir_make_tmp("tlm-overcommit-XXXXXX", NULL);
    }
    f->cpuset_v2 = cpuset_v2;
    f->threads = g_ptr_array_new_with_free_func(fake_thread_free);
    proc = g_strdup_printf("%s/proc/%d", f->root, FAKE_PID);
    self = g_strdup_printf("%s/proc/self", f->root);
    node0 = g_strdup_printf("%s/sys/devices/system/node/node0", f->root);
    node1 = g_strdup_printf("%s/sys/devices/system/node/node1", f->root);
    fake_put(node0, "cpulist", "0-3\n");
    fake_put(node1, "cpulist", "4-7\n");
    fake_put(proc, "stat", "%d (qemu) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 "
             "777 0 0\n", FAKE_PID);
    fake_put(proc, "cgroup", cpuset_v2 ? "1:cpu,cpuacct:/vm\n0::/vm\n" :
             "2:cpuset:/vm\n1:cpu,cpuacct:/vm\n0::/vm\n");
    fake_put(proc, "mountinfo",
             "31 23 0:28 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw\n"
             "32 31 0:29 / %s rw - cgroup2 cgroup2 rw\n"
             "33 31 0:30 / %s rw shared:10 - cgroup cgroup rw,cpuset\n"
             "34 31 0:31 / %s rw - cgroup cgroup rw,cpu,cpuacct\n",
             fake_mount[V2], fake_mount[CPUSET], fake_mount[CPU]);
    g_assert_cmpint(symlink(proc + strlen(f->root) + strlen("/proc/"), self),
                    ==, 0);
    for (int h = 0; h < 3; h++) {
        g_autofree char *top = fake_dir(f, h, "/");
        g_autofree char *vm = fake_dir(f, h, "/vm");

        g_assert_cmpint(g_mkdir_with_parents(top, 0755), ==, 0);
        fake_put(top, h == V2 ? "cgroup.threads" : "tasks", "%s", "");
        if (h == V2) {
            fake_put(top, "cgroup.type", "domain\n");
            fake_put(top, "cgroup.controllers", cpuset_v2 ? "cpuset cpu\n" :
                     "hugetlb\n");
            fake_put(top, "cgroup.subtree_control", cpuset_v2 ?
                     "cpuset cpu\n" : "\n");
        }
        fake_put(top, "cpuset.cpus", FAKE_CPUS "\n");
        fake_put(top, "cpuset.cpus.effective", FAKE_CPUS "\n");
        fake_put(top, "cpuset.effective_cpus", FAKE_CPUS "\n");
        fake_group(f, h, vm);
        if (h == CPUSET || (h == V2 && cpuset_v2)) {
            g_assert_cmpint(fake_set_cpus(f, h, vm, vm_cpus), ==, 0);
        }
        fake_put(vm, "cpuset.mems", "0-1\n");
        fake_put(vm, "cpuset.effective_mems", "0-1\n");
    }
    return f;
}

static void fake_free(Fake *f)
{
    fake_remove(f->root, "");
    g_assert_cmpint(rmdir(f->root), ==, 0);
    g_ptr_array_unref(f->threads);
    g_free(f->root);
    g_free(f);
}

#endif /* OVERCOMMIT_FAKE_H */
