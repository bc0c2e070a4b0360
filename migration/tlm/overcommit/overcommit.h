/*
 * TLM: vCPU over-commit: runs the vCPU threads on fewer host CPUs
 *
 * Plain Linux and glib, no QEMU types: the caller passes thread ids.  The
 * caller serialises all calls on one TlmOc.  The calls do file I/O that may
 * block for milliseconds (moving a thread between cgroups takes a kernel-wide
 * lock), so the caller must not hold the BQL.  Exceptions are tlm_oc_new(),
 * and tlm_oc_free() of a TlmOc that holds nothing.
 *
 * The idea is from the original TLM for qemu-kvm 1.0, which used only
 * sched_setaffinity.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_H
#define TLM_OVERCOMMIT_H

#include "error.h"
#include "ops.h"
#include "schedule.h"

typedef enum TlmOcMethod {
    TLM_OC_METHOD_AUTO,     /* CGROUP, then AFFINITY */
    TLM_OC_METHOD_CGROUP,   /* cpuset: cgroup v2, then v1 */
    TLM_OC_METHOD_QUOTA,    /* cpu.max (v2), CFS quota (v1): never automatic */
    TLM_OC_METHOD_AFFINITY, /* sched_setaffinity */
    TLM_OC_METHOD_THROTTLE, /* not done here: UNAVAILABLE */
    TLM_OC_METHOD_EVENT,    /* not done here: UNAVAILABLE */
} TlmOcMethod;

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

/* Restores first if needed, and drops the outcome */
void tlm_oc_free(TlmOc *oc);

/**
 * tlm_oc_apply: hold exactly the threads @tids on @cpus host CPUs
 *
 * May be called again with another @cpus or another list: threads that
 * joined are saved and taken, threads that left the list are put back,
 * threads that have ended are forgotten.  A larger @cpus than there are means
 * all CPUs.  Before making a cgroup, removes those that killed processes have
 * left below the same directory.
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
 * Moves each living thread back into its saved cgroup and sets its saved
 * affinity mask.  Removes created directories and disables controllers that it
 * had enabled.  Goes on when a part of this fails.
 *
 * Returns true if all was verified equal to the saved state, or nothing was
 * held.  Otherwise @errp (RESTORE) lists the differences.  Threads that failed
 * are still held, and another call tries them again.
 */
bool tlm_oc_restore(TlmOc *oc, GError **errp);

/*
 * The method in use: "cgroup-v2-cpuset", "cgroup-v1-cpuset", "cgroup-v2-quota",
 * "cgroup-v1-quota", "affinity"; NULL: none.  Static string.
 */
const char *tlm_oc_method_in_use(const TlmOc *oc);

/*
 * Why methods before the one in use could not be used, and which cgroups of
 * killed processes could not be removed.  NULL: there is nothing to say, or
 * nothing is in use.  Valid until the next call.
 */
const char *tlm_oc_why_not(const TlmOc *oc);

/* The number of host CPUs in use, as applied; 0: none */
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
 * Looks only at directories with a name that tlm_oc_apply() gives, and only
 * at those whose process is gone.  Returns false and sets @errp (RESTORE)
 * if such a directory could not be removed.
 */
bool tlm_oc_cleanup_stale(const TlmOcConfig *cfg, GPtrArray *removed,
                          GError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(TlmOc, tlm_oc_free)

#endif /* TLM_OVERCOMMIT_H */
