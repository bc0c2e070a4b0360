/*
 * TLM: vCPU over-commit: run the vCPU threads on fewer host CPUs
 *
 * Plain Linux and glib, no QEMU types: the caller passes thread ids.  The
 * caller serialises all calls on one TlmOc.  They do file I/O that may block
 * for milliseconds (moving a thread between cgroups takes a kernel-wide
 * lock), so do not hold the BQL; but for tlm_oc_new(), and tlm_oc_free() of
 * one that holds nothing.
 *
 * The schedule "from this progress on, this many host CPUs" is the one of
 * the original TLM for qemu-kvm 1.0, which used sched_setaffinity only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_H
#define TLM_OVERCOMMIT_H

/* The kernel's largest NR_CPUS */
#define TLM_OC_MAX_CPUS 8192

typedef enum TlmOcError {
    /* An argument is wrong: nothing was changed */
    TLM_OC_ERROR_INVALID,
    /* No placement method can be used: use the next (throttle, event) */
    TLM_OC_ERROR_UNAVAILABLE,
    /* Something could not be put back or verified: the message says what */
    TLM_OC_ERROR_RESTORE,
} TlmOcError;

#define TLM_OC_ERROR tlm_oc_error_quark()
GQuark tlm_oc_error_quark(void);

typedef enum TlmOcMethod {
    TLM_OC_METHOD_AUTO,     /* CGROUP, then AFFINITY */
    TLM_OC_METHOD_CGROUP,   /* cpuset: cgroup v2, then v1 */
    TLM_OC_METHOD_QUOTA,    /* cpu.max (v2), CFS quota (v1): never automatic */
    TLM_OC_METHOD_AFFINITY, /* sched_setaffinity */
    TLM_OC_METHOD_THROTTLE, /* not done here: UNAVAILABLE */
    TLM_OC_METHOD_EVENT,    /* not done here: UNAVAILABLE */
} TlmOcMethod;

/* From @progress (percent of the mtx pass, 0..100) on, @cpus host CPUs */
typedef struct TlmOcStep {
    double progress;
    unsigned cpus;
} TlmOcStep;

typedef struct TlmOcSchedule TlmOcSchedule;

/**
 * tlm_oc_schedule_new: make a schedule from @n steps
 *
 * Progress must rise from step to step and lie in 0..100; cpus must be at
 * least 1 and may fall or rise.  Returns NULL and sets @errp (INVALID) else.
 */
TlmOcSchedule *tlm_oc_schedule_new(const TlmOcStep *steps, size_t n,
                                   GError **errp);

/**
 * tlm_oc_schedule_parse: make a schedule from the notation of the TLM papers
 *
 * "0.5-(2)": two host CPUs from half of the pass on; several steps are
 * separated by commas: "0.2-(4),0.5-(2)".  Note: a fraction, not percent.
 */
TlmOcSchedule *tlm_oc_schedule_parse(const char *text, GError **errp);

void tlm_oc_schedule_free(TlmOcSchedule *s);

/* The host CPUs allowed at @progress percent; 0: no limit (yet) */
unsigned tlm_oc_schedule_cpus(const TlmOcSchedule *s, double progress);

/* Where the first step after @progress percent is; HUGE_VAL: there is none */
double tlm_oc_schedule_next(const TlmOcSchedule *s, double progress);

/* The schedule in the notation that tlm_oc_schedule_parse() reads */
char *tlm_oc_schedule_to_string(const TlmOcSchedule *s);

typedef struct TlmCpuSet {
    unsigned long bits[TLM_OC_MAX_CPUS / 8 / sizeof(unsigned long)];
} TlmCpuSet;

/*
 * What changes the system.  Each returns 0 or -errno.  Unit tests put a
 * simulated kernel here; NULL in TlmOcConfig means the real one.
 */
typedef struct TlmOcOps {
    int (*write)(const char *path, const char *text, void *opaque);
    int (*mkdir)(const char *path, void *opaque);
    int (*rmdir)(const char *path, void *opaque);
    int (*set_affinity)(pid_t tid, const TlmCpuSet *cpus, void *opaque);
} TlmOcOps;

typedef struct TlmOcConfig {
    TlmOcMethod method;
    const char *cpus;       /* host CPUs to use, "0-3,8"; NULL: choose */
    const char *cgroup;     /* delegated cgroup directory; NULL: own one */
    pid_t pid;              /* process of the threads; 0: the caller */
    const char *root;       /* prefix of /proc and /sys; NULL: none */
    const TlmOcOps *ops;
    void *opaque;           /* for ops */
} TlmOcConfig;

typedef struct TlmOc TlmOc;

/**
 * tlm_oc_new: check @cfg and make an idle TlmOc; strings are copied
 *
 * One TlmOc a process at a time: the cgroup's name carries the process.
 * Returns NULL and sets @errp: INVALID on a bad CPU list or directory,
 * UNAVAILABLE if /proc does not show the process (a chroot).
 */
TlmOc *tlm_oc_new(const TlmOcConfig *cfg, GError **errp);

/* Restores first if that has not been done, and drops the outcome */
void tlm_oc_free(TlmOc *oc);

/**
 * tlm_oc_apply: hold exactly the threads @tids on @cpus host CPUs
 *
 * May be called again with another level or another list: threads that
 * joined are saved and taken, threads that left the list are put back,
 * threads that have ended are forgotten.  @cpus beyond what there is means
 * all there is.  Before a cgroup is made, those that killed processes have
 * left below the same directory are removed.
 *
 * Returns false with INVALID (nothing changed) or UNAVAILABLE (every thread
 * is back where it was; @errp says for each method why not) or RESTORE
 * (as UNAVAILABLE, but something could not be put back: see
 * tlm_oc_restore()).
 */
bool tlm_oc_apply(TlmOc *oc, const pid_t *tids, size_t n, unsigned cpus,
                  GError **errp);

/**
 * tlm_oc_restore: put everything back as it was before the first apply
 *
 * Each living thread goes back into its saved cgroup and gets its saved
 * affinity mask; created directories and enabled controllers are removed.
 * Everything is attempted even if some of it fails.
 *
 * Returns true if all was verified equal to the saved state, or nothing was
 * held.  Otherwise @errp (RESTORE) lists the differences; what failed is
 * still held, and another call tries it again.
 */
bool tlm_oc_restore(TlmOc *oc, GError **errp);

/*
 * The method in use: "cgroup-v2-cpuset", "cgroup-v1-cpuset", "cgroup-v2-quota",
 * "cgroup-v1-quota", "affinity"; NULL: none.  Static string.
 */
const char *tlm_oc_method_in_use(const TlmOc *oc);

/*
 * Why the methods that come before the one in use could not be used, and
 * which cgroups of processes that were killed could not be removed; NULL:
 * nothing of that, or nothing is in use.  Valid until the next call.
 */
const char *tlm_oc_why_not(const TlmOc *oc);

/* The level in use (host CPUs, as applied); 0: none */
unsigned tlm_oc_level(const TlmOc *oc);

/* The host CPUs in use as a list; NULL: none, or a quota */
char *tlm_oc_cpus_in_use(const TlmOc *oc);

/**
 * tlm_oc_cleanup_stale: remove cgroups left by processes that were killed
 *
 * @cfg: root, ops and cgroup are used.  With cgroup set, looks at its
 *       children; else, in each hierarchy, at the children of the caller's
 *       own cgroup and of the nearest one that all its threads are below.
 * @removed: if not NULL, the paths of the removed directories are added
 *
 * Only directories with a name that tlm_oc_apply() gives are looked at, and
 * only those whose process is gone.  Returns false and sets @errp (RESTORE)
 * if such a directory could not be removed.
 */
bool tlm_oc_cleanup_stale(const TlmOcConfig *cfg, GPtrArray *removed,
                          GError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(TlmOc, tlm_oc_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TlmOcSchedule, tlm_oc_schedule_free)

#endif /* TLM_OVERCOMMIT_H */
