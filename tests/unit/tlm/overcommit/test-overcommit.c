/*
 * Unit tests of vCPU over-commit against a simulated kernel: every method,
 * levels, the choice of CPUs, joining and leaving threads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "overcommit-fake-ops.h"

typedef struct Case {
    const char *name;
    bool cpuset_v2;
    bool old_kernel;
    bool no_cgroup;
    TlmOcMethod method;
    const char *in_use;
    bool first;             /* no other method is tried before it */
} Case;

static const Case cases[] = {
    { "v2", true, false, false, TLM_OC_METHOD_AUTO, "cgroup-v2-cpuset", true },
    { "v1", false, false, false, TLM_OC_METHOD_AUTO, "cgroup-v1-cpuset" },
    { "v2-old-kernel", true, true, false, TLM_OC_METHOD_CGROUP,
      "cgroup-v2-cpuset", true },
    { "v1-old-kernel", false, true, false, TLM_OC_METHOD_CGROUP,
      "cgroup-v1-cpuset" },
    { "affinity", false, false, false, TLM_OC_METHOD_AFFINITY, "affinity",
      true },
    { "degrade-v2", true, false, true, TLM_OC_METHOD_AUTO, "affinity" },
    { "degrade-v1", false, true, true, TLM_OC_METHOD_AUTO, "affinity" },
    { "quota-v2", true, false, false, TLM_OC_METHOD_QUOTA, "cgroup-v2-quota",
      true },
    { "quota-v1", false, false, false, TLM_OC_METHOD_QUOTA,
      "cgroup-v1-quota" },
};

static char *status_list(Fake *f, pid_t tid)
{
    g_autofree char *dir = g_strdup_printf("%s/proc/self/task/%d", f->root,
                                           tid);
    g_autofree char *text = fake_get(dir, "status");
    char *list = strstr(text, "Cpus_allowed_list:\t");

    list += strlen("Cpus_allowed_list:\t");
    return g_strndup(list, strcspn(list, "\n"));
}

/* All threads can run on CPUs of @list only, unless there is a quota */
static void check_level(Fake *f, TlmOc *oc, unsigned n, const char *list,
                        const char *in_use)
{
    g_autofree char *used = tlm_oc_cpus_in_use(oc);
    TlmCpuSet all, mask;

    g_assert_cmpstr(tlm_oc_method_in_use(oc), ==, in_use);
    g_assert_cmpuint(tlm_oc_level(oc), ==, n);
    if (strstr(in_use, "quota")) {
        g_autofree char *v1 = fake_get(oc->hold.group, "cpu.cfs_quota_us");
        g_autofree char *v2 = fake_get(oc->hold.group, "cpu.max");
        g_autofree char *period = fake_get(oc->hold.group, "cpu.cfs_period_us");
        unsigned long quota, us;

        g_assert_null(used);
        if (v2) {
            g_assert_cmpint(sscanf(v2, "%lu %lu", &quota, &us), ==, 2);
        } else {
            quota = atol(v1);
            us = atol(period);
        }
        g_assert_cmpuint(us, >, 0);
        g_assert_cmpuint(quota, ==, n * us);
        return;
    }
    g_assert_cmpstr(used, ==, list);
    g_assert_true(tlm_cpus_parse(list, &all, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(tids); i++) {
        g_autofree char *is = status_list(f, tids[i]);

        g_assert_true(tlm_cpus_parse(is, &mask, NULL));
        g_assert_true(tlm_cpus_count(&mask) && tlm_cpus_subset(&mask, &all));
    }
}

static void run_case(const Case *c, bool own_cgroups)
{
    Fake *f = fake_new(c->cpuset_v2, "1-7");
    g_auto(GStrv) before = NULL;
    g_autoptr(GError) err = NULL;
    TlmOc *oc;

    f->old_kernel = c->old_kernel;
    f->no_cgroup = c->no_cgroup;
    fake_threads(f, own_cgroups, own_cgroups);
    before = fake_snapshot(f);
    oc = fake_oc(f, c->method, NULL);
    g_assert_null(tlm_oc_method_in_use(oc));

    /* Of CPUs 1-7 node 1 has most; of libvirt's 1-6 both nodes have three */
    for (int round = 0; round < 2; round++) {
        bool few = own_cgroups;
        bool ok = tlm_oc_apply(oc, tids, 4, 2, &err);

        g_assert_no_error(err);
        g_assert_true(ok);
        check_level(f, oc, 2, few ? "1-2" : "4-5", c->in_use);
        g_assert_true(!tlm_oc_why_not(oc) == c->first);
        g_assert_true(tlm_oc_apply(oc, tids, 4, 1, &err));
        check_level(f, oc, 1, few ? "1" : "4", c->in_use);
        g_assert_true(tlm_oc_apply(oc, tids, 4, 5, &err));
        check_level(f, oc, 5, few ? "1-5" : "1,4-7", c->in_use);

        g_assert_true(tlm_oc_restore(oc, &err));
        g_assert_no_error(err);
        fake_check(f, before);
        g_assert_null(tlm_oc_method_in_use(oc));
        g_assert_cmpuint(tlm_oc_level(oc), ==, 0);
        g_assert_null(tlm_oc_why_not(oc));
        /* Nothing is held: nothing to do */
        f->calls = 0;
        g_assert_true(tlm_oc_restore(oc, &err));
        g_assert_cmpint(f->calls, ==, 0);
    }
    tlm_oc_free(oc);
    fake_free(f);
}

static void test_case(gconstpointer c)
{
    run_case(c, false);
}

static void test_case_libvirt(gconstpointer c)
{
    run_case(c, true);
}

/* All there is is not an error, and tlm_oc_free() puts back as well */
static void test_more_than_there_are(void)
{
    Fake *f = fake_new(true, "1-3");
    g_auto(GStrv) before = NULL;
    TlmOc *oc;

    fake_threads(f, false, false);
    before = fake_snapshot(f);
    oc = fake_oc(f, TLM_OC_METHOD_AUTO, NULL);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 100, NULL));
    check_level(f, oc, 3, "1-3", "cgroup-v2-cpuset");
    tlm_oc_free(oc);
    fake_check(f, before);
    fake_free(f);
}

static void test_named(void)
{
    Fake *f = fake_new(false, "1-7");
    g_auto(GStrv) before = NULL;
    g_autoptr(GError) err = NULL;
    TlmOc *oc;

    fake_threads(f, false, false);
    before = fake_snapshot(f);
    oc = fake_oc(f, TLM_OC_METHOD_AUTO, "3,7");
    g_assert_true(tlm_oc_apply(oc, tids, 4, 2, NULL));
    check_level(f, oc, 2, "3,7", "cgroup-v1-cpuset");
    /* More than are named: refused, and nothing changes */
    g_assert_false(tlm_oc_apply(oc, tids, 4, 3, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_INVALID);
    check_level(f, oc, 2, "3,7", "cgroup-v1-cpuset");
    tlm_oc_free(oc);

    /* A named CPU that the cpuset does not have */
    g_clear_error(&err);
    oc = fake_oc(f, TLM_OC_METHOD_CGROUP, "0,3");
    g_assert_false(tlm_oc_apply(oc, tids, 4, 2, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
    tlm_oc_free(oc);
    oc = fake_oc(f, TLM_OC_METHOD_AFFINITY, "0");
    g_clear_error(&err);
    g_assert_false(tlm_oc_apply(oc, tids, 4, 1, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
    tlm_oc_free(oc);
    fake_check(f, before);
    fake_free(f);
}

static void test_bad_arguments(void)
{
    Fake *f = fake_new(false, "1-7");
    const char *const bad_cpus[] = { "", "x", "3-1" };
    TlmOcConfig cfg = { .root = f->root, .ops = &fake_ops, .opaque = f };
    g_autoptr(GError) err = NULL;
    TlmOc *oc;

    for (size_t i = 0; i < G_N_ELEMENTS(bad_cpus); i++) {
        cfg.cpus = bad_cpus[i];
        g_assert_null(tlm_oc_new(&cfg, &err));
        g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_INVALID);
        g_clear_error(&err);
    }
    cfg.cpus = NULL;
    cfg.cgroup = "relative/path";
    g_assert_null(tlm_oc_new(&cfg, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_INVALID);
    g_clear_error(&err);
    cfg.cgroup = NULL;
    cfg.pid = 12345;
    g_assert_null(tlm_oc_new(&cfg, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
    g_clear_error(&err);

    oc = fake_oc(f, TLM_OC_METHOD_AUTO, NULL);
    g_assert_false(tlm_oc_apply(oc, NULL, 0, 1, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_INVALID);
    g_clear_error(&err);
    g_assert_false(tlm_oc_apply(oc, tids, 4, 0, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_INVALID);
    g_clear_error(&err);
    /* None of the threads exists */
    g_assert_false(tlm_oc_apply(oc, tids, 4, 1, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
    g_assert_cmpint(f->calls, ==, 0);
    tlm_oc_free(oc);
    fake_free(f);
}

/* Each method says why not; nothing is changed */
/* A manager pins a thread while it is held: the pin stays, and is said */
static void test_pinned_meanwhile(void)
{
    Fake *f = fake_new(false, "1-7");
    g_autoptr(GError) err = NULL;
    g_autofree char *now = NULL, *again = NULL, *other = NULL;
    TlmCpuSet pin;
    TlmOc *oc;

    fake_threads(f, false, false);
    oc = fake_oc(f, TLM_OC_METHOD_AFFINITY, NULL);
    g_assert_true(tlm_cpus_parse("6", &pin, NULL));

    /* Pinned at the last level: it is not touched, the others are put back */
    g_assert_true(tlm_oc_apply(oc, tids, 4, 2, &err));
    g_assert_cmpint(fake_set_affinity(tids[0], &pin, f), ==, 0);
    g_assert_false(tlm_oc_restore(oc, &err));
    g_assert_nonnull(strstr(err->message, "given CPUs 6 by someone else"));
    g_clear_error(&err);
    now = status_list(f, tids[0]);
    g_assert_cmpstr(now, ==, "6");
    other = status_list(f, tids[3]);
    g_assert_cmpstr(other, ==, "1-7");
    g_assert_null(tlm_oc_method_in_use(oc));

    /* Pinned between two levels: the pin is what is put back */
    g_assert_true(tlm_oc_apply(oc, tids, 4, 2, &err));
    g_assert_cmpint(fake_set_affinity(tids[3], &pin, f), ==, 0);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, &err));
    g_assert_true(tlm_oc_restore(oc, &err));
    again = status_list(f, tids[3]);
    g_assert_cmpstr(again, ==, "6");

    tlm_oc_free(oc);
    fake_free(f);
}

/*
 * The cpuset of the threads is made smaller meanwhile, and no thread is pinned:
 * each gets back what is left of its CPUs
 */
static void test_cpuset_shrinks_meanwhile(void)
{
    Fake *f = fake_new(false, "1-7");
    g_autofree char *dir = fake_dir(f, CPUSET, "/vm");
    g_autoptr(GError) err = NULL;
    g_autofree char *now = NULL, *pinned = NULL;
    TlmOc *oc;

    fake_threads(f, false, false);
    oc = fake_oc(f, TLM_OC_METHOD_AFFINITY, NULL);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 2, &err));
    fake_put(dir, "cpuset.effective_cpus", "2-5\n");
    fake_sync(f);
    /* That not all is as before is said, as ever */
    g_assert_false(tlm_oc_restore(oc, &err));
    g_assert_null(strstr(err->message, "someone else"));
    now = status_list(f, tids[0]);
    g_assert_cmpstr(now, ==, "2-5");
    pinned = status_list(f, tids[2]);
    g_assert_cmpstr(pinned, ==, "2-3");
    tlm_oc_free(oc);
    fake_free(f);
}

static void test_unavailable(void)
{
    static const TlmOcMethod elsewhere[] = {
        TLM_OC_METHOD_THROTTLE, TLM_OC_METHOD_EVENT
    };
    Fake *f = fake_new(false, "1-7");
    g_auto(GStrv) before = NULL;
    g_autoptr(GError) err = NULL;
    TlmOc *oc;

    fake_threads(f, false, false);
    f->no_cgroup = f->no_affinity = true;
    before = fake_snapshot(f);
    oc = fake_oc(f, TLM_OC_METHOD_AUTO, NULL);
    g_assert_false(tlm_oc_apply(oc, tids, 4, 2, &err));
    g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
    g_test_message("%s", err->message);
    g_assert_nonnull(strstr(err->message, "cgroup-v2-cpuset: "));
    g_assert_nonnull(strstr(err->message, "cgroup-v1-cpuset: making "));
    g_assert_nonnull(strstr(err->message, "affinity: sched_setaffinity of"));
    /* Never without being asked for */
    g_assert_null(strstr(err->message, "quota"));
    g_assert_true(tlm_oc_restore(oc, NULL));
    tlm_oc_free(oc);
    fake_check(f, before);

    for (size_t i = 0; i < G_N_ELEMENTS(elsewhere); i++) {
        g_clear_error(&err);
        f->calls = 0;
        oc = fake_oc(f, elsewhere[i], NULL);
        g_assert_false(tlm_oc_apply(oc, tids, 4, 2, &err));
        g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
        g_assert_cmpint(f->calls, ==, 0);
        tlm_oc_free(oc);
    }
    fake_free(f);
}

/* Threads that join are held, threads that leave the list are put back */
static void test_hotplug(gconstpointer opaque)
{
    const Case *c = opaque;
    Fake *f = fake_new(c->cpuset_v2, "1-7");
    g_auto(GStrv) before = NULL;
    g_autofree char *list = NULL;
    g_autofree char *third = NULL, *second = NULL;
    TlmOc *oc;

    f->old_kernel = c->old_kernel;
    f->no_cgroup = c->no_cgroup;
    fake_threads(f, true, false);
    before = fake_snapshot(f);
    second = status_list(f, tids[1]);
    third = status_list(f, tids[2]);
    oc = fake_oc(f, c->method, "1,4");
    g_assert_true(tlm_oc_apply(oc, tids, 2, 1, NULL));
    list = status_list(f, tids[2]);
    g_assert_cmpstr(list, ==, third);
    g_assert_true(tlm_oc_apply(oc, tids, 4, 1, NULL));
    check_level(f, oc, 1, "1", c->in_use);
    g_assert_true(tlm_oc_apply(oc, tids + 2, 2, 1, NULL));
    g_clear_pointer(&list, g_free);
    list = status_list(f, tids[1]);
    g_assert_cmpstr(list, ==, second);
    g_assert_true(tlm_oc_restore(oc, NULL));
    fake_check(f, before);
    tlm_oc_free(oc);
    fake_free(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *plain = g_strconcat("/overcommit/levels/",
                                             cases[i].name, NULL);
        g_autofree char *libvirt = g_strconcat("/overcommit/libvirt/",
                                               cases[i].name, NULL);
        g_autofree char *hotplug = g_strconcat("/overcommit/hotplug/",
                                               cases[i].name, NULL);

        g_test_add_data_func(plain, &cases[i], test_case);
        g_test_add_data_func(libvirt, &cases[i], test_case_libvirt);
        g_test_add_data_func(hotplug, &cases[i], test_hotplug);
    }
    g_test_add_func("/overcommit/more-than-there-are",
                    test_more_than_there_are);
    g_test_add_func("/overcommit/named", test_named);
    g_test_add_func("/overcommit/bad-arguments", test_bad_arguments);
    g_test_add_func("/overcommit/pinned-meanwhile", test_pinned_meanwhile);
    g_test_add_func("/overcommit/cpuset-shrinks-meanwhile",
                    test_cpuset_shrinks_meanwhile);
    g_test_add_func("/overcommit/unavailable", test_unavailable);
    return g_test_run();
}
