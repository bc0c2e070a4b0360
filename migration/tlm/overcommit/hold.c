/*
 * TLM: vCPU over-commit: the threads that are held
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "affinity.h"
#include "choose.h"
#include "error.h"
#include "hold.h"

/*
 * Puts thread number @i back.  Forgets it unless trying again may help.  An
 * error that stays for good is kept for tlm_oc_restore() to report.  An error
 * that may still be put right is added to @errors, if not NULL.
 */
static void put_back(TlmOcHold *h, guint i, GString *errors)
{
    TlmOcThread *t = g_ptr_array_index(h->threads, i);
    g_autoptr(GError) err = NULL;

    if (t->taken && tlm_oc_thread_alive(h->proc, t) &&
        !(h->backend->put_back(h, t, &err) &&
          tlm_oc_affinity_put_back(h, t, &err)) &&
        tlm_oc_thread_alive(h->proc, t)) {
        if (t->taken) {
            if (errors) {
                tlm_oc_add_message(errors, NULL, err->message);
            }
            return;
        }
        tlm_oc_add_message(h->lost, NULL, err->message);
    }
    g_ptr_array_remove_index(h->threads, i);
}

void tlm_oc_put_back_all(TlmOcHold *h, GString *errors)
{
    g_autoptr(GError) err = NULL;

    for (guint i = h->threads->len; i-- > 0; ) {
        put_back(h, i, errors);
    }
    /* Removing the cgroup would send the rest of its threads elsewhere */
    if (!h->backend || h->threads->len) {
        return;
    }
    if (!h->backend->close(h, &err)) {
        tlm_oc_add_message(h->group ? errors : h->lost, NULL, err->message);
    }
    if (!h->group) {
        h->backend = NULL;
        h->level = 0;
    }
}

static bool in_list(const pid_t *tids, size_t n, pid_t tid)
{
    for (size_t i = 0; i < n; i++) {
        if (tids[i] == tid) {
            return true;
        }
    }
    return false;
}

/* Index of the record of thread @tid, or -1; a dead record is dropped */
static int find_thread(TlmOcHold *h, pid_t tid)
{
    for (guint i = 0; i < h->threads->len; i++) {
        TlmOcThread *t = g_ptr_array_index(h->threads, i);

        if (t->tid == tid) {
            if (tlm_oc_thread_alive(h->proc, t)) {
                return i;
            }
            g_ptr_array_remove_index(h->threads, i);
            return -1;
        }
    }
    return -1;
}

/* Puts back the threads that left the list and saves those that joined */
static bool update_threads(TlmOcHold *h, const pid_t *tids, size_t n,
                           GError **errp)
{
    for (guint i = h->threads->len; i-- > 0; ) {
        TlmOcThread *t = g_ptr_array_index(h->threads, i);

        if (!in_list(tids, n, t->tid)) {
            put_back(h, i, NULL);
        }
    }
    for (size_t i = 0; i < n; i++) {
        GError *err = NULL;
        TlmOcThread *t;

        if (find_thread(h, tids[i]) >= 0) {
            continue;
        }
        t = tlm_oc_thread_save(h->proc, tids[i], &err);
        if (t) {
            g_ptr_array_add(h->threads, t);
        } else if (err) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                        "cannot save thread %d: %s", (int)tids[i],
                        err->message);
            g_error_free(err);
            return false;
        }
    }
    if (!h->threads->len) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "none of the %zu threads exists", n);
    }
    return h->threads->len;
}

static bool choose_cpus(TlmOcHold *h, unsigned n, GError **errp)
{
    TlmCpuSet from = { 0 };

    if (h->named) {
        from = h->named_cpus;
    } else {
        for (guint i = 0; i < h->threads->len; i++) {
            TlmOcThread *t = g_ptr_array_index(h->threads, i);

            tlm_cpus_or(&from, &t->mask);
        }
    }
    tlm_cpus_and(&from, &h->usable);
    if (tlm_cpus_count(&from) < (h->named ? n : 1)) {
        g_autofree char *usable = tlm_cpus_format(&h->usable);

        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "%u of the wanted CPUs can be used here (CPUs %s)",
                    tlm_cpus_count(&from), usable);
        return false;
    }
    tlm_cpus_choose(h->sys.root, &from, n, &h->cpus);
    return true;
}

/* Is the thread held, i.e. can it run on CPUs in use only? */
static bool check_taken(TlmOcHold *h, TlmOcThread *t, GError **errp)
{
    g_autofree char *is = NULL, *want = NULL;
    TlmCpuSet mask;

    if (h->backend->quota) {
        return true;
    }
    if (!tlm_oc_thread_mask(h->proc, t->tid, &mask, NULL, errp)) {
        return false;
    }
    if (tlm_cpus_count(&mask) && tlm_cpus_subset(&mask, &h->cpus)) {
        return true;
    }
    is = tlm_cpus_format(&mask);
    want = tlm_cpus_format(&h->cpus);
    g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                "thread %d may run on CPUs %s instead of %s", (int)t->tid, is,
                want);
    return false;
}

static bool take_all(TlmOcHold *h, GError **errp)
{
    for (guint i = h->threads->len; i-- > 0; ) {
        TlmOcThread *t = g_ptr_array_index(h->threads, i);
        GError *err = NULL;

        t->taken = true;
        if (h->backend->take(h, t, &err) && check_taken(h, t, &err)) {
            continue;
        }
        if (tlm_oc_thread_alive(h->proc, t)) {
            g_propagate_error(errp, err);
            return false;
        }
        g_error_free(err);
        g_ptr_array_remove_index(h->threads, i);
    }
    if (!h->threads->len) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "all threads have ended");
    }
    return h->threads->len;
}

static bool set_level(TlmOcHold *h, unsigned n, GError **errp)
{
    if (!h->backend->quota && !choose_cpus(h, n, errp)) {
        return false;
    }
    if (!h->backend->limit(h, n, errp) || !take_all(h, errp)) {
        return false;
    }
    h->level = h->backend->quota ? n : tlm_cpus_count(&h->cpus);
    return true;
}

bool tlm_oc_hold(TlmOcHold *h, const TlmOcBackend *backend, const pid_t *tids,
                 size_t n, unsigned cpus, GError **errp)
{
    bool is_open = h->backend;

    h->backend = backend;
    return update_threads(h, tids, n, errp) &&
           (is_open || backend->open(h, errp)) && set_level(h, cpus, errp);
}
