/*
 * Unit tests of vCPU over-commit against a simulated kernel: several processes
 * in one cgroup, cgroups of killed processes, delegated directories, mounts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "overcommit-fake-ops.h"

static void add_process(Fake *f, pid_t pid, unsigned start)
{
    g_autofree char *proc = g_strdup_printf("%s/proc/%d", f->root, pid);

    fake_put(proc, "stat", "%d (qemu) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 "
             "%u 0 0\n", pid, start);
}

static char *control(Fake *f)
{
    g_autofree char *vm = fake_dir(f, V2, "/vm");

    return fake_get(vm, "cgroup.subtree_control");
}

/*
 * Two processes in one v2 cgroup, whichever ends first: the controller stays
 * enabled as long as one needs it, and not longer.
 */
static void test_two_processes(gconstpointer opaque)
{
    bool second_first = opaque;
    Fake *f = fake_new(true, "1-7");
    g_auto(GStrv) before = NULL;
    g_autofree char *on = NULL, *off = NULL;
    TlmOc *oc[2];

    fake_threads(f, false, false);
    add_process(f, 5000, 888);
    before = fake_snapshot(f);
    oc[0] = fake_oc(f, TLM_OC_METHOD_CGROUP, NULL);
    oc[1] = fake_oc(f, TLM_OC_METHOD_CGROUP, NULL);
    /* The other one in the name only: the threads are all in one /proc */
    g_free(oc[1]->hold.name);
    oc[1]->hold.name = g_strdup("tlm-5000-888");

    g_assert_true(tlm_oc_apply(oc[0], tids, 2, 1, NULL));
    g_assert_true(tlm_oc_apply(oc[1], tids + 2, 2, 1, NULL));
    g_assert_true(tlm_oc_restore(oc[second_first], NULL));
    on = control(f);
    g_assert_cmpstr(on, ==, "cpuset");
    g_assert_true(tlm_oc_restore(oc[!second_first], NULL));
    off = control(f);
    g_assert_cmpstr(off, ==, "");
    fake_check(f, before);
    tlm_oc_free(oc[0]);
    tlm_oc_free(oc[1]);
    fake_free(f);
}

/* Others set something while the controller was on: it stays, and we say so */
static void test_others_use_it(void)
{
    Fake *f = fake_new(true, "1-7");
    g_autofree char *other = fake_dir(f, V2, "/vm/other");
    g_autofree char *on = NULL;
    g_autoptr(GError) err = NULL;
    TlmOc *oc;

    fake_threads(f, false, false);
    oc = fake_oc(f, TLM_OC_METHOD_CGROUP, NULL);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    fake_group(f, V2, other);
    g_assert_cmpint(fake_set_cpus(f, V2, other, "5"), ==, 0);
    g_assert_false(tlm_oc_restore(oc, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE);
    g_assert_nonnull(strstr(err->message, "cpuset was left enabled"));
    on = control(f);
    g_assert_cmpstr(on, ==, "cpuset");
    g_assert_cmpstr(fake_find(f, tids[0])->path[V2], ==, "/vm");
    g_assert_true(tlm_oc_restore(oc, NULL));
    tlm_oc_free(oc);
    fake_free(f);
}

static void clean(Fake *f, const char *cgroup, unsigned removed, bool ok)
{
    TlmOcConfig cfg = {
        .root = f->root, .ops = &fake_ops, .opaque = f, .cgroup = cgroup,
    };
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) err = NULL;

    g_assert_true(tlm_oc_cleanup_stale(&cfg, list, &err) == ok);
    g_assert_true(ok == !err);
    g_assert_cmpuint(list->len, ==, removed);
}

/* A process is killed in the middle */
static void test_killed(gconstpointer opaque)
{
    const char *how = opaque;
    bool v2 = strstr(how, "v2");
    TlmOcMethod method = strstr(how, "quota") ? TLM_OC_METHOD_QUOTA :
                         TLM_OC_METHOD_CGROUP;
    Fake *f = fake_new(v2, "1-7");
    g_auto(GStrv) before = fake_snapshot(f);
    g_autofree char *proc = g_strdup_printf("%s/proc/%d", f->root, FAKE_PID);
    g_autofree char *task = g_build_filename(proc, "task", NULL);
    TlmOc *oc;

    fake_threads(f, false, false);
    oc = fake_oc(f, method, NULL);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    clean(f, NULL, 0, true);

    for (guint i = 0; i < f->threads->len; i++) {
        FakeThread *t = g_ptr_array_index(f->threads, i);

        t->gone = true;
    }
    fake_sync(f);
    /* Another process has got the id; it is also the one that cleans */
    fake_put(proc, "stat", "%d (next) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 "
             "%d 0 0\n", FAKE_PID, 999);
    clean(f, NULL, 1, true);
    clean(f, NULL, 0, true);
    fake_put(proc, "stat", "%d (qemu) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 "
             "777 0 0\n", FAKE_PID);
    g_assert_cmpint(rmdir(task), ==, 0);
    fake_check(f, before);
    tlm_oc_free(oc);
    fake_free(f);
}

/* As a killed process would: /vm/tlm-4242-1 */
static char *leave_stale(Fake *f, bool v2)
{
    g_autofree char *vm = fake_dir(f, v2 ? V2 : CPUSET, "/vm");
    char *stale = g_build_filename(vm, v2 ? "tlm-4242-1-cpuset" : "tlm-4242-1",
                                   NULL);

    if (v2) {
        fake_put(vm, "cgroup.subtree_control", "cpuset\n");
    }
    fake_group(f, v2 ? V2 : CPUSET, stale);
    return stale;
}

/*
 * A manager keeps the main thread and each vCPU in a cgroup of its own: what
 * was left is beside them, found by the next migration and by the caller of
 * tlm_oc_cleanup_stale().
 */
static void test_killed_managed(gconstpointer opaque)
{
    bool v2 = opaque;
    Fake *f = fake_new(v2, "1-7");
    g_autofree char *proc = g_strdup_printf("%s/proc/%d", f->root, FAKE_PID);
    g_autofree char *stale = NULL, *again = NULL;
    g_auto(GStrv) before = NULL;
    TlmOc *oc;

    fake_threads(f, true, false);
    fake_put(proc, "cgroup", "2:%s:/vm/emulator\n1:cpu,cpuacct:/vm/emulator\n"
             "0::/vm/emulator\n", v2 ? "name=systemd" : "cpuset");
    before = fake_snapshot(f);

    stale = leave_stale(f, v2);
    clean(f, NULL, 1, true);
    fake_check(f, before);

    again = leave_stale(f, v2);
    oc = fake_oc(f, TLM_OC_METHOD_CGROUP, NULL);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    g_assert_false(g_file_test(again, G_FILE_TEST_EXISTS));
    g_assert_true(tlm_oc_restore(oc, NULL));
    fake_check(f, before);
    tlm_oc_free(oc);
    fake_free(f);
}

/* One that cannot be removed is no obstacle, but is told */
static void test_killed_stays(void)
{
    Fake *f = fake_new(false, "1-7");
    g_autofree char *stale = NULL;
    TlmOc *oc;

    fake_threads(f, true, false);
    stale = leave_stale(f, false);
    fake_thread(f, 4300, "/vm/tlm-4242-1", NULL);
    oc = fake_oc(f, TLM_OC_METHOD_CGROUP, NULL);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    g_assert_nonnull(strstr(tlm_oc_why_not(oc), stale));
    g_assert_true(tlm_oc_restore(oc, NULL));
    g_assert_true(g_file_test(stale, G_FILE_TEST_IS_DIR));
    tlm_oc_free(oc);
    fake_free(f);
}

/* What does not look exactly like ours, or is in use, is left alone */
static void test_not_ours(void)
{
    static const char *const others[] = {
        "tlm-", "tlm-x-1", "tlm-4242", "tlm-4242-", "tlm-4242-1x",
        "tlm-4242-1-memory", "tlm--4242-1", "tlm-0-1", "xtlm-4242-1",
        "tlm-99999999999-1", "tlm-4242-1-cpuset-x", "libvirt", "tlm-4000-777",
    };
    Fake *f = fake_new(false, "1-7");
    g_autofree char *dir = fake_dir(f, CPUSET, "/vm");
    g_autofree char *used = g_build_filename(dir, "tlm-4243-1", NULL);
    g_autofree char *stale = g_build_filename(dir, "tlm-4242-1", NULL);
    g_autofree char *file = g_build_filename(dir, "tlm-4244-1", NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        g_autofree char *path = g_build_filename(dir, others[i], NULL);

        fake_group(f, CPUSET, path);
    }
    fake_put(dir, "tlm-4244-1", "a file\n");
    clean(f, NULL, 0, true);
    /* No process of that name, but threads: perhaps another pid namespace */
    fake_group(f, CPUSET, used);
    fake_thread(f, 4300, "/vm/tlm-4243-1", NULL);
    clean(f, NULL, 0, false);
    g_assert_cmpstr(fake_find(f, 4300)->path[CPUSET], ==, "/vm/tlm-4243-1");
    fake_group(f, CPUSET, stale);
    clean(f, "/sys/fs/cgroup/cpuset", 0, true);
    clean(f, "/sys/fs/cgroup/cpuset/vm", 1, false);
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        g_autofree char *path = g_build_filename(dir, others[i], NULL);

        g_assert_true(g_file_test(path, G_FILE_TEST_IS_DIR));
    }
    g_assert_true(g_file_test(used, G_FILE_TEST_IS_DIR));
    g_assert_true(g_file_test(file, G_FILE_TEST_EXISTS));
    g_assert_false(g_file_test(stale, G_FILE_TEST_EXISTS));
    fake_free(f);
}

/* A directory given by the user, of the right and of the wrong version */
static void test_delegated(void)
{
    Fake *f = fake_new(false, "1-7");
    g_autofree char *dir = fake_dir(f, CPUSET, "/delegated");
    TlmOcConfig cfg = {
        .root = f->root, .ops = &fake_ops, .opaque = f,
        .method = TLM_OC_METHOD_CGROUP,
        .cgroup = "/sys/fs/cgroup/cpuset/delegated",
    };
    g_auto(GStrv) before = NULL;
    g_autoptr(GError) err = NULL;
    TlmOc *oc;

    fake_group(f, CPUSET, dir);
    g_assert_cmpint(fake_set_cpus(f, CPUSET, dir, "6-7"), ==, 0);
    fake_put(dir, "cpuset.mems", "0-1\n");
    fake_put(dir, "cpuset.effective_mems", "0-1\n");
    fake_threads(f, true, false);
    before = fake_snapshot(f);
    oc = tlm_oc_new(&cfg, NULL);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    /* libvirt's cpusets have 1-6 */
    g_assert_cmpstr(fake_find(f, tids[0])->path[CPUSET], ==,
                    "/delegated/tlm-4000-777");
    g_assert_true(tlm_cpus_has(&oc->hold.cpus, 6));
    g_assert_true(tlm_oc_restore(oc, NULL));
    fake_check(f, before);
    tlm_oc_free(oc);

    cfg.cgroup = "/sys/fs/cgroup/unified/vm";
    oc = tlm_oc_new(&cfg, NULL);
    g_assert_false(tlm_oc_apply(oc, tids, 4, 1, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
    g_assert_nonnull(strstr(err->message, "is not available in"));
    g_assert_nonnull(strstr(err->message, "is not a cgroup v1 directory"));
    fake_check(f, before);
    tlm_oc_free(oc);
    fake_free(f);
}

static void check_dir(const char *root, const char *path, bool v2,
                      const char *want)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *dir = tlm_oc_cgroup_dir(root, "cpuset", v2, path, &err);

    g_assert_true(!dir == !!err);
    g_assert_true(!dir == !want);
    if (want) {
        g_assert_cmpstr(dir + strlen(root), ==, want);
    }
}

/* Mounts of a part of a hierarchy (containers), odd names, other options */
static void test_mounts(void)
{
    Fake *f = fake_new(false, "1-7");
    g_autofree char *proc = g_build_filename(f->root, "proc/self", NULL);

    fake_put(proc, "mountinfo",
             "1 0 0:1 / /a rw - cgroup cgroup rw,cpu,cpuacct,xcpuset\n"
             "2 0 0:2 /docker/x /b\\040c rw shared:1 master:2 - cgroup cpuset "
             "rw,cpu,cpuset\n"
             "3 0 0:3 / /d rw - cgroup2 none rw,nsdelegate\n"
             "4 0 0:4 short\n");
    check_dir(f->root, "/docker/x", false, "/b c");
    check_dir(f->root, "/docker/x/y", false, "/b c/y");
    check_dir(f->root, "/docker/xy", false, NULL);
    check_dir(f->root, "/", false, NULL);
    check_dir(f->root, "/", true, "/d");
    check_dir(f->root, "/e:f/g", true, "/d/e:f/g");
    check_dir(f->root, "/../g", true, NULL);
    fake_free(f);
}

static void check_path(const char *text, bool v2, const char *want)
{
    g_autofree char *path = tlm_cgroup_path(text, "cpuset", v2);

    g_assert_cmpstr(path, ==, want);
}

static void test_paths(void)
{
    check_path("3:cpu,cpuset:/a:b/c\n0::/d\n", false, "/a:b/c");
    check_path("3:cpu,cpuset:/a:b/c\n0::/d\n", true, "/d");
    check_path("3:xcpuset:/a\n2:name=cpuset:/b\n", false, NULL);
    check_path("3:cpuset:/a\n", true, NULL);
    check_path("10::/a\n", true, NULL);
    check_path("", true, NULL);
    check_path("rubbish\n:\n0:\n0::/x (deleted)", true, "/x (deleted)");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/overcommit/two-processes/first-ends", NULL,
                         test_two_processes);
    g_test_add_data_func("/overcommit/two-processes/second-ends", "second",
                         test_two_processes);
    g_test_add_func("/overcommit/others-use-it", test_others_use_it);
    g_test_add_data_func("/overcommit/killed/v2", "v2", test_killed);
    g_test_add_data_func("/overcommit/killed/v1", "v1", test_killed);
    g_test_add_data_func("/overcommit/killed/v2-quota", "v2 quota",
                         test_killed);
    g_test_add_data_func("/overcommit/killed/v1-quota", "v1 quota",
                         test_killed);
    g_test_add_data_func("/overcommit/killed/managed/v2", "v2",
                         test_killed_managed);
    g_test_add_data_func("/overcommit/killed/managed/v1", NULL,
                         test_killed_managed);
    g_test_add_func("/overcommit/killed/stays", test_killed_stays);
    g_test_add_func("/overcommit/not-ours", test_not_ours);
    g_test_add_func("/overcommit/delegated", test_delegated);
    g_test_add_func("/overcommit/mounts", test_mounts);
    g_test_add_func("/overcommit/paths", test_paths);
    return g_test_run();
}
