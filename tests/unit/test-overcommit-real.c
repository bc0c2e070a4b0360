/*
 * Tests of vCPU over-commit against the kernel it runs on
 *
 * Threads of this process stand for vCPU threads.  What the kernel shows of
 * each thread (affinity, memory nodes, all cgroups) and of the cgroup they are
 * in must be the same after as before.  A method that this kernel or user does
 * not offer is skipped with the reason.  As process 1 of a virtual machine
 * (test-overcommit-real.py) it first mounts a system with cgroup v2 only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "overcommit-real.h"
#include "overcommit-real-init.h"

#define NOBODY 65534

typedef struct Method {
    const char *name;       /* as tlm_oc_method_in_use() says */
    TlmOcMethod method;
} Method;

static const Method methods[] = {
    { "cgroup-v2-cpuset", TLM_OC_METHOD_CGROUP },
    { "cgroup-v1-cpuset", TLM_OC_METHOD_CGROUP },
    { "cgroup-v2-quota", TLM_OC_METHOD_QUOTA },
    { "cgroup-v1-quota", TLM_OC_METHOD_QUOTA },
    { "affinity", TLM_OC_METHOD_AFFINITY },
};

/* Skips the test unless this machine offers @m; needs the threads started */
static bool can_use(const Method *m)
{
    TlmOc *oc = new_oc(m->method);
    g_autoptr(GError) err = NULL;
    bool ok = tlm_oc_apply(oc, tids, N_THREADS, 1, &err) &&
              !strcmp(tlm_oc_method_in_use(oc), m->name);

    if (!ok) {
        const char *why = err ? err->message : tlm_oc_why_not(oc);

        /* This method is ruled out by what is offered before it */
        g_test_skip(why ? why : tlm_oc_method_in_use(oc));
    }
    g_assert_true(tlm_oc_restore(oc, NULL));
    tlm_oc_free(oc);
    return ok;
}

/* Applies @level and checks what the kernel shows of each thread */
static void apply(TlmOc *oc, unsigned level)
{
    g_autoptr(GError) err = NULL;
    bool ok = tlm_oc_apply(oc, tids, N_THREADS, level, &err);
    bool quota = strstr(tlm_oc_method_in_use(oc) ?: "", "quota");
    bool cgroup = strcmp(tlm_oc_method_in_use(oc) ?: "", "affinity");

    g_assert_no_error(err);
    g_assert_true(ok);
    for (int i = 0; i < N_THREADS; i++) {
        g_autofree char *dir = g_strdup_printf("/proc/self/task/%d", tids[i]);
        g_autofree char *list = NULL, *groups = NULL;
        TlmCpuSet cpus;

        if (is_gone(tids[i])) {
            continue;
        }
        list = status_list(tids[i], "\nCpus_allowed_list:");
        groups = tlm_oc_read(dir, "cgroup", NULL);
        g_assert_true(tlm_cpus_parse(list, &cpus, NULL));
        g_assert_true(quota || tlm_cpus_count(&cpus) <= level);
        g_assert_true(cgroup == !!strstr(groups, "/tlm-"));
    }
}

static void check_restore(TlmOc *oc, const char *before)
{
    g_autoptr(GError) err = NULL;
    bool ok = tlm_oc_restore(oc, &err);

    g_assert_no_error(err);
    g_assert_true(ok);
    check_same(before);
}

static void test_levels(gconstpointer opaque)
{
    const Method *m = opaque;
    g_autofree char *before = NULL, *main_before = NULL, *main_now = NULL;
    TlmOc *oc;

    start_all(false);
    if (can_use(m)) {
        before = snapshot();
        main_before = tlm_oc_read("/proc/thread-self", "cgroup", NULL);
        oc = new_oc(m->method);
        for (int round = 0; round < 3; round++) {
            apply(oc, 1);
            apply(oc, 2);
            apply(oc, 1);
            /* Nobody else is moved */
            main_now = tlm_oc_read("/proc/thread-self", "cgroup", NULL);
            g_assert_cmpstr(main_now, ==, main_before);
            g_clear_pointer(&main_now, g_free);
            check_restore(oc, before);
        }
        tlm_oc_free(oc);
    }
    end_all();
}

/* Threads that were pinned by taskset or the like */
static void test_pinned(gconstpointer opaque)
{
    const Method *m = opaque;
    g_autofree char *before = NULL;
    TlmCpuSet all, cpu;
    TlmOc *oc;

    start_all(false);
    if (can_use(m)) {
        g_autofree char *list = status_list(tids[0], "\nCpus_allowed_list:");

        g_assert_true(tlm_cpus_parse(list, &all, NULL));
        for (unsigned i = 0, n = 0; i < TLM_OC_MAX_CPUS && n < N_THREADS - 1;
             i++) {
            if (tlm_cpus_has(&all, i)) {
                memset(&cpu, 0, sizeof(cpu));
                tlm_cpus_add(&cpu, i);
                g_assert_cmpint(tlm_oc_real_ops.set_affinity(tids[n++], &cpu,
                                                             NULL), ==, 0);
            }
        }
        before = snapshot();
        oc = new_oc(m->method);
        apply(oc, 1);
        apply(oc, 2);
        check_restore(oc, before);
        tlm_oc_free(oc);
    }
    end_all();
}

/* A cgroup below @own for thread @tid, on @cpu only if not NULL */
static char *make_own_cgroup(const char *own, bool v2, pid_t tid,
                             const char *cpu)
{
    g_autofree char *text = g_strdup_printf("%d", tid);
    char *dir = g_strdup_printf("%s/vcpu-%d", own, tid);

    g_assert_cmpint(mkdir(dir, 0755), ==, 0);
    if (v2) {
        real_put(dir, "cgroup.type", "threaded");
        real_put(own, "cgroup.subtree_control", "+cpuset +cpu");
    } else {
        g_autofree char *mems = tlm_oc_read(own, "cpuset.mems", NULL);
        g_autofree char *cpus = tlm_oc_read(own, "cpuset.cpus", NULL);

        if (mems) {
            real_put(dir, "cpuset.mems", mems);
            real_put(dir, "cpuset.cpus", cpus);
        }
    }
    if (cpu) {
        real_put(dir, "cpuset.cpus", cpu);
    }
    real_put(dir, v2 ? "cgroup.threads" : "tasks", text);
    return dir;
}

/* Threads in cgroups of their own, as libvirt makes them, with a CPU each */
static void test_own_cgroups(gconstpointer opaque)
{
    const Method *m = opaque;
    bool quota = strstr(m->name, "quota");
    bool cpuset = strstr(m->name, "cpuset");
    const char *controller = quota ? "cpu" : "cpuset";
    g_autofree char *before = NULL, *own = NULL;
    char *dir[2] = { NULL, NULL };
    bool v2 = false;
    TlmOc *oc;

    start_all(false);
    if (can_use(m)) {
        own = own_dir(controller, false);
        v2 = !own;
        if (v2) {
            own = own_dir(NULL, true);
        }
        if (!own || access(own, W_OK) < 0) {
            /* affinity can be used even so */
            g_test_skip("no cgroup hierarchy can be written to");
            end_all();
            return;
        }
        /* sched_setaffinity cannot leave a cpuset: no CPU of its own */
        dir[0] = make_own_cgroup(own, v2, tids[0], cpuset ? "0" : NULL);
        dir[1] = make_own_cgroup(own, v2, tids[1], cpuset ? "1" : NULL);
        before = snapshot();
        oc = new_oc(m->method);
        apply(oc, 1);
        apply(oc, 2);
        check_restore(oc, before);
        tlm_oc_free(oc);
    }
    end_all();
    for (int i = 0; i < 2 && dir[i]; i++) {
        g_assert_cmpint(rmdir(dir[i]), ==, 0);
        g_free(dir[i]);
        if (i && v2) {
            real_put(own, "cgroup.subtree_control", "-cpuset -cpu");
        }
    }
}

/* Threads end, start and start others while they are held */
static void test_churn(gconstpointer opaque)
{
    const Method *m = opaque;
    g_autofree char *before = NULL, *cgroups = NULL, *list = NULL;
    g_autofree char *list0 = NULL, *dir = NULL;
    Worker child = { 0 };
    TlmOc *oc;

    start_all(false);
    if (can_use(m)) {
        oc = new_oc(m->method);
        for (int round = 0; round < 20; round++) {
            Worker *w = &workers[round % N_THREADS];

            apply(oc, 1 + round % 2);
            worker_end(w);
            worker_start(w);
            if (round % 2) {
                tids[round % N_THREADS] = w->tid;
            }
            apply(oc, 2 - round % 2);
            tids[round % N_THREADS] = w->tid;
        }
        apply(oc, 1);
        worker_fork(&workers[0], &child);
        worker_end(&workers[3]);
        before = snapshot();
        g_assert_true(tlm_oc_restore(oc, NULL));
        /* The child of a held thread is not left in our cgroup either */
        dir = g_strdup_printf("/proc/self/task/%d", child.tid);
        cgroups = tlm_oc_read(dir, "cgroup", NULL);
        g_assert_null(strstr(cgroups, "/tlm-"));
        if (strcmp(m->name, "affinity")) {
            list = status_list(child.tid, "\nCpus_allowed_list:");
            list0 = status_list(tids[0], "\nCpus_allowed_list:");
            g_assert_cmpstr(list, ==, list0);
        }
        worker_end(&child);
        worker_start(&workers[3]);
        tids[3] = workers[3].tid;
        g_free(before);
        before = snapshot();
        g_assert_null(strstr(before, "/tlm-"));
        apply(oc, 1);
        check_restore(oc, before);
        tlm_oc_free(oc);
    }
    end_all();
}

/*
 * The threads together get no more CPU time than they are allowed.  On a host
 * that stands still, a quota lets them have more for the moment, or nothing
 * while they work it off: then it is measured for longer.
 */
static void test_effect(gconstpointer opaque)
{
    const Method *m = opaque;
    gint64 start, first, used, us;
    bool kept;
    TlmOc *oc;

    start_all(true);
    if (can_use(m)) {
        oc = new_oc(m->method);
        apply(oc, 1);
        start = g_get_monotonic_time();
        first = busy_time();
        do {
            sched_yield();
            used = busy_time() - first;
            us = g_get_monotonic_time() - start;
            /* A tick of each thread, or a period of the quota, is cut off */
            kept = used > 0 && used < us * 11 / 10 + 20000;
        } while (us < 300 * 1000 || (!kept && us < 20 * G_USEC_PER_SEC));
        g_test_message("%" PRId64 " us of CPU time in %" PRId64 " us", used,
                       us);
        g_assert_true(kept);
        g_assert_true(tlm_oc_restore(oc, NULL));
        tlm_oc_free(oc);
    }
    end_all();
}

static void add(const char *name, GTestDataFunc func)
{
    for (size_t i = 0; i < G_N_ELEMENTS(methods); i++) {
        g_autofree char *path = g_strdup_printf("/overcommit-real/%s/%s", name,
                                                methods[i].name);

        g_test_add_data_func(path, &methods[i], func);
    }
}

#include "overcommit-real-process.h"

int main(int argc, char **argv)
{
    char *init_args[] = { argv[0], (char *)"--tap", (char *)"-k", NULL };
    char **args = argv;

    if (getpid() == 1) {
        init_system();
        argc = 3;
        args = init_args;
    }
    g_test_init(&argc, &args, NULL);
    add("levels", test_levels);
    add("pinned", test_pinned);
    add("own-cgroups", test_own_cgroups);
    add("churn", test_churn);
    add("effect", test_effect);
    add("killed", test_killed);
    g_test_add_func("/overcommit-real/nobody", test_nobody);
    g_test_add_func("/overcommit-real/sandbox", test_sandbox);
    return g_test_run();
}
