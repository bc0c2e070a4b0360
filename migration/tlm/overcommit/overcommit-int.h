/*
 * TLM: vCPU over-commit, shared by the overcommit*.c files only
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_INT_H
#define TLM_OVERCOMMIT_INT_H

#include "overcommit.h"

/* CPU sets: overcommit-cpus.c */
void tlm_cpus_add(TlmCpuSet *s, unsigned cpu);
bool tlm_cpus_has(const TlmCpuSet *s, unsigned cpu);
unsigned tlm_cpus_count(const TlmCpuSet *s);
void tlm_cpus_or(TlmCpuSet *s, const TlmCpuSet *other);
void tlm_cpus_and(TlmCpuSet *s, const TlmCpuSet *other);
bool tlm_cpus_equal(const TlmCpuSet *a, const TlmCpuSet *b);
bool tlm_cpus_subset(const TlmCpuSet *a, const TlmCpuSet *of);
/* Reads the kernel's list format; an empty list is an empty set */
bool tlm_cpus_parse(const char *list, TlmCpuSet *s, GError **errp);
char *tlm_cpus_format(const TlmCpuSet *s);
/*
 * The first @n CPUs of @from, those of the NUMA node with the most of them
 * first.  A larger @n gives a superset.  @root: prefix of /sys.
 */
void tlm_cpus_choose(const char *root, const TlmCpuSet *from, unsigned n,
                     TlmCpuSet *out);

/* What is known of a held thread; all up to @mems is from before the change */
typedef struct TlmOcThread {
    pid_t tid;
    uint64_t start;         /* start time, clock ticks: tells reused ids */
    char *cgroups;          /* text of /proc/PID/task/TID/cgroup */
    TlmCpuSet mask;         /* affinity */
    TlmCpuSet mems;         /* allowed memory nodes */
    bool taken;             /* a backend may have changed this thread */
    bool held;              /* by affinity, and this is the mask it got: */
    TlmCpuSet given;
} TlmOcThread;

typedef struct TlmOcBackend TlmOcBackend;

struct TlmOc {
    char *root;
    char *proc;             /* ROOT/proc/PID */
    char *name;             /* tlm-PID-STARTTIME */
    char *cgroup;           /* delegated directory or NULL */
    TlmOcMethod method;
    bool named;             /* the user named the CPUs: */
    TlmCpuSet named_cpus;
    const TlmOcOps *ops;
    void *opaque;

    GPtrArray *threads;     /* of TlmOcThread */
    const TlmOcBackend *backend;    /* NULL: nothing is held */
    char *group;            /* cgroup backends: directory made, or NULL */
    TlmCpuSet usable;       /* the CPUs that the backend can give */
    TlmCpuSet cpus;         /* those in use */
    unsigned level;
    char *why_not;          /* the methods tried before the one in use */
    GString *lost;          /* what could not be put back, ever */
    GString *stale;         /* what others left and could not be removed */
};

/*
 * A way to hold threads on few CPUs.  open() is called once, with all
 * threads saved, and sets oc->usable; it may leave things half made, which
 * close() removes.  limit() sets oc->cpus or @n, take() one thread; both may
 * be called again.  put_back() undoes take() except for the affinity mask; if
 * it fails and trying again is of no use, it clears t->taken.  take() and
 * put_back() may fail because the thread ended: the caller looks.
 */
struct TlmOcBackend {
    const char *name;
    const char *controller; /* cgroups only */
    bool v2;
    bool quota;             /* limits time, not CPUs */
    const char *threads;    /* file that takes thread ids */
    bool (*open)(TlmOc *oc, GError **errp);
    bool (*limit)(TlmOc *oc, unsigned n, GError **errp);
    bool (*take)(TlmOc *oc, TlmOcThread *t, GError **errp);
    bool (*put_back)(TlmOc *oc, TlmOcThread *t, GError **errp);
    bool (*close)(TlmOc *oc, GError **errp);
};

extern const TlmOcBackend tlm_oc_cgroup_v2_cpuset;
extern const TlmOcBackend tlm_oc_cgroup_v1_cpuset;
extern const TlmOcBackend tlm_oc_cgroup_v2_quota;
extern const TlmOcBackend tlm_oc_cgroup_v1_quota;
extern const TlmOcBackend tlm_oc_affinity;

/* What changes the real system: overcommit-ops.c */
extern const TlmOcOps tlm_oc_real_ops;

/* Reading /proc and cgroup mounts: overcommit-proc.c */

/* Save the state of @tid; NULL without @errp set: there is no such thread */
TlmOcThread *tlm_oc_thread_save(TlmOc *oc, pid_t tid, GError **errp);
void tlm_oc_thread_free(TlmOcThread *t);
/* The saved thread still exists (and its id has not been reused) */
bool tlm_oc_thread_alive(TlmOc *oc, const TlmOcThread *t);
/* Its affinity mask, or memory nodes, as the kernel now reports */
bool tlm_oc_thread_mask(TlmOc *oc, pid_t tid, TlmCpuSet *mask,
                        TlmCpuSet *mems, GError **errp);
/* Text of its cgroup file now */
char *tlm_oc_thread_cgroups(TlmOc *oc, pid_t tid, GError **errp);
/* Start time and id in a "stat" file; false: no such process or thread */
bool tlm_oc_read_stat(const char *path, pid_t *pid, uint64_t *start);
/*
 * The path that text of a cgroup file gives for a v1 @controller, or for
 * the v2 hierarchy (@v2); NULL: not in such a hierarchy.
 */
char *tlm_oc_cgroup_path(const char *text, const char *controller, bool v2);
/* Shortens @path to what it has in common with @other, whole names only */
void tlm_oc_keep_common(char *path, const char *other);
/* The directory of cgroup @path in a mounted hierarchy */
char *tlm_oc_cgroup_dir(const char *root, const char *controller, bool v2,
                        const char *path, GError **errp);
/* A file's text without the final newline */
char *tlm_oc_read(const char *dir, const char *file, GError **errp);
/* @list is blank-separated */
bool tlm_oc_has_word(const char *list, const char *word);

/* Affinity: overcommit-affinity.c; used after cgroup moves as well */
bool tlm_oc_affinity_put_back(TlmOc *oc, TlmOcThread *t, GError **errp);

/*
 * Our cgroups: overcommit-group.c.  Their name is tlm-PID-STARTTIME, with
 * -CONTROLLER behind it if we had to enable that for the parent's children
 * (v2 only).
 */

/* The name for process directory @proc (ROOT/proc/PID), without controller */
char *tlm_oc_group_name(const char *proc, GError **errp);
/* @name is one of ours; if so, gives process and start time */
bool tlm_oc_group_parse(const char *name, pid_t *pid, uint64_t *start);
/* Makes one below @parent, on v2 threaded and with the backend's controller */
bool tlm_oc_group_make(TlmOc *oc, const char *parent, GError **errp);
/*
 * Moves threads that are left in @dir to its parent, removes it, and disables
 * the controller if its name says so and no other of our cgroups needs it.
 * May be called again if it fails; an error RESTORE says that this is of no
 * use, as others have begun to use the controller.
 */
bool tlm_oc_group_remove(const TlmOcOps *ops, void *opaque, const char *dir,
                         GError **errp);
/*
 * overcommit-stale.c: removes those of processes that are gone below @parent.
 * @removed: if not NULL, gets their paths.  @errors: gets what went wrong.
 */
void tlm_oc_clean_below(const char *root, const TlmOcOps *ops, void *opaque,
                        const char *parent, GPtrArray *removed,
                        GString *errors);
/* oc->ops->write of @text to @dir/@file */
bool tlm_oc_write(const TlmOcOps *ops, void *opaque, const char *dir,
                  const char *file, const char *text, GError **errp);

#endif /* TLM_OVERCOMMIT_INT_H */
