/*
 * TLM: vCPU over-commit: methods to hold threads on few CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_BACKEND_H
#define TLM_OVERCOMMIT_BACKEND_H

#include "cpus.h"
#include "ops.h"
#include "proc.h"

typedef struct TlmOcBackend TlmOcBackend;

typedef struct TlmOcHold {
    TlmOcSystem sys;
    char *proc;             /* ROOT/proc/PID */
    char *name;             /* tlm-PID-STARTTIME */
    char *cgroup;           /* delegated directory or NULL */
    bool named;             /* the user named the CPUs: */
    TlmCpuSet named_cpus;

    GPtrArray *threads;     /* of TlmOcThread */
    const TlmOcBackend *backend;    /* NULL: nothing is held */
    char *group;            /* cgroup backends: directory made, or NULL */
    TlmCpuSet usable;       /* the CPUs that the backend can give */
    TlmCpuSet cpus;         /* those in use */
    unsigned level;
    GString *lost;          /* what could not be put back, ever */
    GString *stale;         /* cgroups of others that could not be removed */
} TlmOcHold;

/*
 * A method to hold threads on few CPUs.  open() is called once, with all
 * threads saved, and sets h->usable.  It may leave things half made, which
 * close() removes.  limit() sets h->cpus or @n, take() holds one thread; both
 * may be called again.  put_back() undoes take() except for the affinity mask.
 * If it fails and trying again is of no use, it clears t->taken.  take() and
 * put_back() may fail because the thread has ended: the caller checks this.
 */
struct TlmOcBackend {
    const char *name;
    const char *controller; /* cgroups only */
    bool v2;
    bool quota;             /* limits time, not CPUs */
    const char *threads;    /* file that takes thread ids */
    bool (*open)(TlmOcHold *h, GError **errp);
    bool (*limit)(TlmOcHold *h, unsigned n, GError **errp);
    bool (*take)(TlmOcHold *h, TlmOcThread *t, GError **errp);
    bool (*put_back)(TlmOcHold *h, TlmOcThread *t, GError **errp);
    bool (*close)(TlmOcHold *h, GError **errp);
};

#endif
