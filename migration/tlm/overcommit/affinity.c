/*
 * TLM: vCPU over-commit by sched_setaffinity
 *
 * A thread that was already pinned keeps to those of its CPUs that are in
 * use.  A thread with none of them gets all CPUs in use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "affinity.h"
#include "error.h"

static bool set_affinity(TlmOcHold *h, pid_t tid, const TlmCpuSet *cpus,
                         GError **errp)
{
    int ret = h->sys.ops->set_affinity(tid, cpus, h->sys.opaque);

    if (ret) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "sched_setaffinity of thread %d: %s", (int)tid,
                    g_strerror(-ret));
    }
    return !ret;
}

static bool affinity_open(TlmOcHold *h, GError **errp)
{
    memset(&h->usable, 0xff, sizeof(h->usable));
    return true;
}

static bool affinity_limit(TlmOcHold *h, unsigned n, GError **errp)
{
    return true;
}

/*
 * The mask @now is not the one that TLM gave.  Has somebody else set it?  Or
 * has the thread's cpuset changed, which cuts every mask?  The kernel turns a
 * mask of "all CPUs" into the cpuset.  Leaves the thread with @now.
 */
static bool pinned_by_another(TlmOcHold *h, TlmOcThread *t,
                              const TlmCpuSet *now, bool *pinned,
                              GError **errp)
{
    TlmCpuSet cpuset, ours = t->given;

    memset(&cpuset, 0xff, sizeof(cpuset));
    if (!set_affinity(h, t->tid, &cpuset, errp) ||
        !tlm_oc_thread_mask(h->proc, t->tid, &cpuset, NULL, errp)) {
        return false;
    }
    tlm_cpus_and(&ours, &cpuset);
    *pinned = !tlm_cpus_equal(now, tlm_cpus_count(&ours) ? &ours : &cpuset);
    return set_affinity(h, t->tid, now, errp);
}

static bool affinity_take(TlmOcHold *h, TlmOcThread *t, GError **errp)
{
    TlmCpuSet want, now;
    bool pinned = false;

    if (t->held) {
        if (!tlm_oc_thread_mask(h->proc, t->tid, &now, NULL, errp)) {
            return false;
        }
        if (!tlm_cpus_equal(&now, &t->given) &&
            !pinned_by_another(h, t, &now, &pinned, errp)) {
            return false;
        }
        if (pinned) {
            /* That is what to put back */
            t->mask = now;
        }
        t->held = false;
    }
    want = t->mask;
    tlm_cpus_and(&want, &h->cpus);
    if (!set_affinity(h, t->tid, tlm_cpus_count(&want) ? &want : &h->cpus,
                      errp) ||
        !tlm_oc_thread_mask(h->proc, t->tid, &t->given, NULL, errp)) {
        return false;
    }
    t->held = true;
    return true;
}

bool tlm_oc_affinity_put_back(TlmOcHold *h, TlmOcThread *t, GError **errp)
{
    TlmCpuSet now, all;
    bool pinned = false;

    if (!tlm_oc_thread_mask(h->proc, t->tid, &now, NULL, errp)) {
        return false;
    }
    if (tlm_cpus_equal(&now, &t->mask)) {
        return true;
    }
    if (t->held && !tlm_cpus_equal(&now, &t->given) &&
        !pinned_by_another(h, t, &now, &pinned, errp)) {
        return false;
    }
    if (pinned) {
        g_autofree char *is = tlm_cpus_format(&now);
        g_autofree char *was = tlm_cpus_format(&t->mask);

        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE,
                    "thread %d was given CPUs %s by someone else; before it "
                    "was on %s", (int)t->tid, is, was);
        t->taken = false;
        return false;
    }
    /* A mask seen from now on may be one that TLM gave */
    t->held = false;
    /*
     * Kernels since 6.2 remember a requested mask, and apply it again when
     * the thread's cpuset grows.  So for a thread that was never pinned "all
     * CPUs" is more exact than the mask that it showed.
     */
    memset(&all, 0xff, sizeof(all));
    if (!set_affinity(h, t->tid, &all, errp) ||
        !tlm_oc_thread_mask(h->proc, t->tid, &now, NULL, errp)) {
        return false;
    }
    if (tlm_cpus_equal(&now, &t->mask)) {
        return true;
    }
    if (!set_affinity(h, t->tid, &t->mask, errp) ||
        !tlm_oc_thread_mask(h->proc, t->tid, &now, NULL, errp)) {
        return false;
    }
    if (!tlm_cpus_equal(&now, &t->mask)) {
        g_autofree char *is = tlm_cpus_format(&now);
        g_autofree char *was = tlm_cpus_format(&t->mask);

        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE,
                    "thread %d may run on CPUs %s, before on %s",
                    (int)t->tid, is, was);
        return false;
    }
    return true;
}

/* The core puts the mask of every thread back, whatever the backend */
static bool affinity_put_back(TlmOcHold *h, TlmOcThread *t, GError **errp)
{
    return true;
}

static bool affinity_close(TlmOcHold *h, GError **errp)
{
    return true;
}

const TlmOcBackend tlm_oc_affinity = {
    .name = "affinity",
    .open = affinity_open,
    .limit = affinity_limit,
    .take = affinity_take,
    .put_back = affinity_put_back,
    .close = affinity_close,
};
