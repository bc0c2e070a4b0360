/*
 * Unit tests of vCPU over-commit against a simulated kernel: what goes wrong,
 * threads and processes that end, others who change things meanwhile
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "overcommit-fake-ops.h"

typedef struct Case {
    const char *name;
    bool cpuset_v2;
    bool old_kernel;
    bool own_cgroups;
    TlmOcMethod method;
} Case;

static const Case cases[] = {
    { "v2", true, false, false, TLM_OC_METHOD_CGROUP },
    { "v2-libvirt", true, true, true, TLM_OC_METHOD_CGROUP },
    { "v1", false, false, false, TLM_OC_METHOD_CGROUP },
    { "v1-libvirt", false, true, true, TLM_OC_METHOD_CGROUP },
    { "affinity", false, false, false, TLM_OC_METHOD_AFFINITY },
    { "auto", true, false, false, TLM_OC_METHOD_AUTO },
    { "quota", true, false, false, TLM_OC_METHOD_QUOTA },
};

static Fake *case_fake(const Case *c)
{
    Fake *f = fake_new(c->cpuset_v2, "1-7");

    f->old_kernel = c->old_kernel;
    fake_threads(f, c->own_cgroups, c->own_cgroups);
    return f;
}

/* The number of calls that two levels and the restore take */
static int count_calls(const Case *c, int *applied)
{
    Fake *f = case_fake(c);
    TlmOc *oc = fake_oc(f, c->method, NULL);
    int calls;

    g_assert_true(tlm_oc_apply(oc, tids, 4, 2, NULL));
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    *applied = f->calls;
    g_assert_true(tlm_oc_restore(oc, NULL));
    calls = f->calls;
    g_assert_cmpint(calls, >, *applied);
    g_assert_cmpint(*applied, >, 4);
    tlm_oc_free(oc);
    fake_free(f);
    return calls;
}

/* Any one call fails: in the end all is as before */
static void test_one_failure(gconstpointer opaque)
{
    const Case *c = opaque;
    int applied, calls = count_calls(c, &applied);
    unsigned failed = 0;

    for (int at = 1; at <= calls; at++) {
        Fake *f = case_fake(c);
        g_auto(GStrv) before = fake_snapshot(f);
        g_autoptr(GError) err = NULL;
        TlmOc *oc = fake_oc(f, c->method, NULL);
        bool ok;

        f->fail_at = at;
        ok = tlm_oc_apply(oc, tids, 4, 2, &err) &&
             tlm_oc_apply(oc, tids, 4, 1, &err);
        if (!ok) {
            g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
            fake_check(f, before);
            failed++;
        }
        g_clear_error(&err);
        ok = tlm_oc_restore(oc, &err);
        if (at <= applied) {
            g_assert_no_error(err);
        }
        if (!ok) {
            /* Told, and another try puts it right */
            g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE);
            g_assert_nonnull(strstr(err->message, "Permission denied"));
            failed++;
            g_assert_true(tlm_oc_restore(oc, NULL));
        }
        tlm_oc_free(oc);
        fake_check(f, before);
        fake_free(f);
    }
    g_test_message("%d calls, %u of their failures showed", calls, failed);
    g_assert_cmpuint(failed, >, 0);
}

/* All calls fail from some point on, and later work again */
static void test_lasting_failure(gconstpointer opaque)
{
    const Case *c = opaque;
    int applied;

    count_calls(c, &applied);
    for (int at = 1; at <= applied; at++) {
        Fake *f = case_fake(c);
        g_auto(GStrv) before = fake_snapshot(f);
        g_autoptr(GError) err = NULL;
        TlmOc *oc = fake_oc(f, c->method, NULL);

        f->fail_at = at;
        f->fail_on = true;
        g_assert_false(tlm_oc_apply(oc, tids, 4, 2, &err) &&
                       tlm_oc_apply(oc, tids, 4, 1, &err));
        /* If something could not be undone this was said */
        if (err->code == TLM_OC_ERROR_UNAVAILABLE) {
            fake_check(f, before);
        } else {
            g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE);
            g_clear_error(&err);
            g_assert_false(tlm_oc_restore(oc, &err));
            g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE);
        }
        f->fail_at = 0;
        g_assert_true(tlm_oc_restore(oc, NULL));
        fake_check(f, before);
        tlm_oc_free(oc);
        fake_free(f);
    }
}

/* A thread ends before any one call: the others are served and put back */
static void test_thread_ends(gconstpointer opaque)
{
    const Case *c = opaque;
    int applied, calls = count_calls(c, &applied);

    for (int at = 1; at <= calls; at++) {
        /* The first one or the last one */
        for (size_t i = 0; i < G_N_ELEMENTS(tids);
             i += G_N_ELEMENTS(tids) - 1) {
            Fake *f = case_fake(c), *without = case_fake(c);
            g_auto(GStrv) before = NULL;
            g_autoptr(GError) err = NULL;
            TlmOc *oc;

            fake_find(without, tids[i])->gone = true;
            fake_sync(without);
            before = fake_snapshot(without);
            f->exit_at = at;
            f->exit_tid = tids[i];
            oc = fake_oc(f, c->method, NULL);
            g_assert_true(tlm_oc_apply(oc, tids, 4, 2, &err));
            g_assert_true(tlm_oc_apply(oc, tids, 4, 1, &err));
            g_assert_cmpuint(tlm_oc_level(oc), ==, 1);
            g_assert_true(tlm_oc_restore(oc, &err));
            g_assert_no_error(err);
            if (f->calls < at) {
                fake_find(f, tids[i])->gone = true;
                fake_sync(f);
            }
            fake_check(f, before);
            tlm_oc_free(oc);
            fake_free(f);
            fake_free(without);
        }
    }
}

/* A thread id that another thread has got since: it is left alone */
static void test_id_reused(gconstpointer opaque)
{
    const Case *c = opaque;
    Fake *f = case_fake(c);
    TlmOc *oc = fake_oc(f, c->method, NULL);
    g_autofree char *cgroups = NULL, *now = NULL;
    FakeThread *t;

    g_assert_true(tlm_oc_apply(oc, tids, 4, 2, NULL));
    t = fake_find(f, tids[1]);
    t->start += 5;
    fake_sync(f);
    cgroups = g_strdup(t->path[c->cpuset_v2 ? V2 : CPUSET]);
    f->calls = 0;
    g_assert_true(tlm_oc_restore(oc, NULL));
    now = g_strdup(t->path[c->cpuset_v2 ? V2 : CPUSET]);
    if (c->method == TLM_OC_METHOD_AFFINITY) {
        g_assert_cmpstr(now, ==, cgroups);
    } else {
        /* It was in our cgroup, which had to go: as a stray it moved out */
        g_assert_cmpstr(now, ==, "/vm");
    }
    tlm_oc_free(oc);
    fake_free(f);
}

/* A thread that a held one created is moved out, and does not get in the way */
static void test_stray(gconstpointer opaque)
{
    const Case *c = opaque;
    Fake *f = case_fake(c);
    int h = c->method == TLM_OC_METHOD_QUOTA || c->cpuset_v2 ? V2 : CPUSET;
    TlmOc *oc = fake_oc(f, c->method, NULL);
    FakeThread *parent = fake_find(f, tids[0]);

    g_assert_true(tlm_oc_apply(oc, tids, 4, 2, NULL));
    fake_thread(f, 4100, parent->path[h], NULL);
    g_assert_true(tlm_oc_restore(oc, NULL));
    g_assert_null(strstr(fake_find(f, 4100)->path[h], "tlm-"));
    g_assert_null(strstr(parent->path[h], "tlm-"));
    tlm_oc_free(oc);
    fake_free(f);
}

/* Someone else moved a thread meanwhile: it is left there, and this is said */
static void test_moved(void)
{
    Fake *f = case_fake(&cases[3]);
    TlmOc *oc = fake_oc(f, TLM_OC_METHOD_CGROUP, NULL);
    g_autofree char *vm = fake_dir(f, CPUSET, "/vm");
    g_autofree char *other = fake_dir(f, CPUSET, "/vm/other");
    g_autofree char *tasks = g_build_filename(other, "tasks", NULL);
    g_autofree char *tid = g_strdup_printf("%d", tids[2]);
    g_autoptr(GError) err = NULL;

    fake_group(f, CPUSET, other);
    g_assert_cmpint(fake_set_cpus(f, CPUSET, other, "6"), ==, 0);
    fake_put(other, "cpuset.mems", "0\n");
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    g_assert_cmpint(fake_write(tasks, tid, f), ==, 0);
    g_assert_false(tlm_oc_restore(oc, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE);
    g_assert_nonnull(strstr(err->message, "4003"));
    g_assert_nonnull(strstr(err->message, "/vm/other"));
    g_assert_null(strstr(err->message, "4002"));
    g_assert_cmpstr(fake_find(f, tids[2])->path[CPUSET], ==, "/vm/other");
    g_assert_cmpstr(fake_find(f, tids[1])->path[CPUSET], ==, "/vm/vcpu1");
    /* There is nothing more to do */
    g_assert_true(tlm_oc_restore(oc, NULL));
    tlm_oc_free(oc);
    fake_free(f);
}

/* A thread's cgroup is gone: it goes to the parent, and this is said */
static void test_home_removed(void)
{
    Fake *f = case_fake(&cases[3]);
    TlmOc *oc = fake_oc(f, TLM_OC_METHOD_CGROUP, NULL);
    g_autofree char *home = fake_dir(f, CPUSET, "/vm/vcpu3");
    g_autoptr(GError) err = NULL;

    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    g_assert_cmpint(fake_rmdir(home, f), ==, 0);
    g_assert_false(tlm_oc_restore(oc, &err));
    g_assert_nonnull(strstr(err->message, "/vm/vcpu3"));
    g_assert_cmpstr(fake_find(f, tids[3])->path[CPUSET], ==, "/vm");
    g_assert_true(tlm_oc_restore(oc, NULL));
    g_assert_null(tlm_oc_method_in_use(oc));
    tlm_oc_free(oc);
    fake_free(f);
}

static void add_cases(const char *name, GTestDataFunc func, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        g_autofree char *path = g_strdup_printf("/overcommit/%s/%s", name,
                                                cases[i].name);

        g_test_add_data_func(path, &cases[i], func);
    }
}

int main(int argc, char **argv)
{
    size_t all = G_N_ELEMENTS(cases);

    g_test_init(&argc, &argv, NULL);
    add_cases("one-failure", test_one_failure, all);
    add_cases("lasting-failure", test_lasting_failure, all);
    add_cases("thread-ends", test_thread_ends, all);
    add_cases("id-reused", test_id_reused, 5);
    add_cases("stray", test_stray, 4);
    g_test_add_func("/overcommit/moved", test_moved);
    g_test_add_func("/overcommit/home-removed", test_home_removed);
    return g_test_run();
}
