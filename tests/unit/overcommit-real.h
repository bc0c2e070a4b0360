/*
 * Threads that stand for vCPU threads, and what the kernel shows of them and
 * of the cgroups they are in; for test-overcommit-real.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef OVERCOMMIT_REAL_H
#define OVERCOMMIT_REAL_H

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include "cgroup-dir.h"
#include "overcommit/ops.h"
#include "overcommit/overcommit.h"
#include "overcommit/proc.h"

#define N_THREADS 5

typedef struct Worker {
    pthread_t thread;
    pid_t tid;
    sem_t started, stop;
    bool busy;              /* spin instead of waiting */
    bool quit;
    struct Worker *child;   /* to be started by this thread */
} Worker;

static Worker workers[N_THREADS];
static pid_t tids[N_THREADS];
static pid_t child_pid;     /* the last process that the test has started */

static inline void worker_start(Worker *w);

static void *worker_run(void *opaque)
{
    Worker *w = opaque;

    w->tid = syscall(SYS_gettid);
    sem_post(&w->started);
    while (!__atomic_load_n(&w->quit, __ATOMIC_SEQ_CST)) {
        if (!w->busy) {
            while (sem_wait(&w->stop)) {
                /* interrupted */
            }
        }
        if (w->child) {
            worker_start(g_steal_pointer(&w->child));
            sem_post(&w->started);
        }
    }
    return NULL;
}

static inline void worker_start(Worker *w)
{
    sem_init(&w->started, 0, 0);
    sem_init(&w->stop, 0, 0);
    w->quit = false;
    g_assert_cmpint(pthread_create(&w->thread, NULL, worker_run, w), ==, 0);
    sem_wait(&w->started);
}

/* Lets thread @w start thread @child: it inherits cgroup and affinity */
static inline void worker_fork(Worker *w, Worker *child)
{
    w->child = child;
    sem_post(&w->stop);
    sem_wait(&w->started);
}

/* Waits until the kernel has forgotten it as well */
static inline void worker_end(Worker *w)
{
    g_autofree char *task = g_strdup_printf("/proc/self/task/%d", w->tid);

    __atomic_store_n(&w->quit, true, __ATOMIC_SEQ_CST);
    sem_post(&w->stop);
    g_assert_cmpint(pthread_join(w->thread, NULL), ==, 0);
    while (!access(task, F_OK)) {
        sched_yield();
    }
}

static inline void start_all(bool busy)
{
    for (int i = 0; i < N_THREADS; i++) {
        workers[i].busy = busy;
        worker_start(&workers[i]);
        tids[i] = workers[i].tid;
    }
}

static inline void end_all(void)
{
    for (int i = 0; i < N_THREADS; i++) {
        worker_end(&workers[i]);
    }
}

static inline TlmOc *new_oc(TlmOcMethod method)
{
    TlmOcConfig cfg = { .method = method };
    g_autoptr(GError) err = NULL;
    TlmOc *oc = tlm_oc_new(&cfg, &err);

    g_assert_no_error(err);
    return oc;
}

static inline char *status_list(pid_t tid, const char *key)
{
    g_autofree char *dir = g_strdup_printf("/proc/self/task/%d", tid);
    g_autofree char *text = tlm_oc_read(dir, "status", NULL);
    char *p = strstr(text, key);

    return g_strndup(p + strlen(key), strcspn(p + strlen(key), "\n"));
}

/* The caller's cgroup of @controller as a directory, or NULL */
static inline char *own_dir(const char *controller, bool v2)
{
    g_autofree char *text = tlm_oc_read("/proc/self", "cgroup", NULL);
    g_autofree char *path = tlm_cgroup_path(text, controller, v2);

    return path ? tlm_oc_cgroup_dir("", controller, v2, path, NULL) : NULL;
}

/* Another process that uses the engine has its groups here as well */
static inline bool is_group_of(const char *name, pid_t pid)
{
    g_autofree char *prefix = g_strdup_printf("tlm-%d-", pid);

    return pid && g_str_has_prefix(name, prefix);
}

/* The names of our groups below @dir, and how v2 is set up there */
static inline void add_dir(GString *text, const char *dir)
{
    static const char *const files[] = {
        "cgroup.type", "cgroup.subtree_control", "cgroup.controllers"
    };
    g_autoptr(GDir) d = dir ? g_dir_open(dir, 0, NULL) : NULL;
    const char *name;

    while (d && (name = g_dir_read_name(d))) {
        if (is_group_of(name, getpid()) || is_group_of(name, child_pid)) {
            g_string_append_printf(text, "%s/%s\n", dir, name);
        }
    }
    for (size_t i = 0; dir && i < G_N_ELEMENTS(files); i++) {
        g_autofree char *now = tlm_oc_read(dir, files[i], NULL);

        g_string_append_printf(text, "%s/%s: %s\n", dir, files[i], now);
    }
}

/* What the kernel shows of the threads that have not ended, and around them */
static inline char *snapshot(void)
{
    GString *text = g_string_new(NULL);
    g_autofree char *v2 = own_dir(NULL, true);
    g_autofree char *cpuset = own_dir("cpuset", false);
    g_autofree char *cpu = own_dir("cpu", false);

    for (int i = 0; i < N_THREADS; i++) {
        g_autofree char *dir = g_strdup_printf("/proc/self/task/%d", tids[i]);
        g_autofree char *cgroups = tlm_oc_read(dir, "cgroup", NULL);

        if (cgroups) {
            g_autofree char *cpus = status_list(tids[i],
                                                "\nCpus_allowed_list:");
            g_autofree char *mems = status_list(tids[i],
                                                "\nMems_allowed_list:");

            g_string_append_printf(text, "%d: cpus %s mems %s\n%s\n", tids[i],
                                   cpus, mems, cgroups);
        }
    }
    add_dir(text, v2);
    add_dir(text, cpuset);
    add_dir(text, cpu);
    return g_string_free(text, FALSE);
}

static inline void check_same(const char *before)
{
    g_autofree char *now = snapshot();

    g_assert_cmpstr(now, ==, before);
}

static inline bool is_gone(pid_t tid)
{
    g_autofree char *dir = g_strdup_printf("/proc/self/task/%d", tid);

    return access(dir, F_OK);
}

/* CPU time that the threads have used, us */
static inline gint64 busy_time(void)
{
    gint64 sum = 0;

    for (int i = 0; i < N_THREADS; i++) {
        struct timespec ts;
        clockid_t clock;

        g_assert_cmpint(pthread_getcpuclockid(workers[i].thread, &clock), ==,
                        0);
        g_assert_cmpint(clock_gettime(clock, &ts), ==, 0);
        sum += ts.tv_sec * G_USEC_PER_SEC + ts.tv_nsec / 1000;
    }
    return sum;
}

static inline void real_put(const char *dir, const char *file,
                            const char *text)
{
    const TlmOcSystem sys = { .root = "", .ops = &tlm_oc_real_ops };
    g_autoptr(GError) err = NULL;

    tlm_oc_write(&sys, dir, file, text, &err);
    g_assert_no_error(err);
}

#endif /* OVERCOMMIT_REAL_H */
