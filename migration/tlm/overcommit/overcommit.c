/*
 * TLM: vCPU over-commit: run the vCPU threads on fewer host CPUs
 *
 * The core: which threads are held, by which backend, and what they were
 * before.  A thread is saved before anything touches it, and forgotten only
 * when it has been verified equal to that, or has ended.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "overcommit-int.h"

static const TlmOcBackend *const backends_auto[] = {
    &tlm_oc_cgroup_v2_cpuset, &tlm_oc_cgroup_v1_cpuset, &tlm_oc_affinity, NULL
};
static const TlmOcBackend *const backends_cgroup[] = {
    &tlm_oc_cgroup_v2_cpuset, &tlm_oc_cgroup_v1_cpuset, NULL
};
static const TlmOcBackend *const backends_quota[] = {
    &tlm_oc_cgroup_v2_quota, &tlm_oc_cgroup_v1_quota, NULL
};
static const TlmOcBackend *const backends_affinity[] = {
    &tlm_oc_affinity, NULL
};
static const TlmOcBackend *const backends_none[] = { NULL };

static const TlmOcBackend *const *candidates(TlmOcMethod method)
{
    switch (method) {
    case TLM_OC_METHOD_AUTO:
        return backends_auto;
    case TLM_OC_METHOD_CGROUP:
        return backends_cgroup;
    case TLM_OC_METHOD_QUOTA:
        return backends_quota;
    case TLM_OC_METHOD_AFFINITY:
        return backends_affinity;
    case TLM_OC_METHOD_THROTTLE:
    case TLM_OC_METHOD_EVENT:
        break;
    }
    return backends_none;
}

/* Adds @message to the list @text */
static void add_message(GString *text, const char *prefix, const char *message)
{
    g_string_append_printf(text, "%s%s%s%s", text->len ? "; " : "",
                           prefix ?: "", prefix ? ": " : "", message);
}

TlmOc *tlm_oc_new(const TlmOcConfig *cfg, GError **errp)
{
    g_autoptr(TlmOc) oc = g_new0(TlmOc, 1);

    oc->root = g_strdup(cfg->root ?: "");
    oc->proc = cfg->pid ?
               g_strdup_printf("%s/proc/%d", oc->root, (int)cfg->pid) :
               g_strdup_printf("%s/proc/self", oc->root);
    oc->cgroup = g_strdup(cfg->cgroup);
    oc->method = cfg->method;
    oc->ops = cfg->ops ?: &tlm_oc_real_ops;
    oc->opaque = cfg->opaque;
    oc->lost = g_string_new(NULL);
    oc->stale = g_string_new(NULL);
    oc->threads = g_ptr_array_new_with_free_func(
                      (GDestroyNotify)tlm_oc_thread_free);

    if (cfg->cgroup && *cfg->cgroup != '/') {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                    "cgroup directory '%s' is not an absolute path",
                    cfg->cgroup);
        return NULL;
    }
    if (cfg->cpus) {
        oc->named = true;
        if (!tlm_cpus_parse(cfg->cpus, &oc->named_cpus, errp)) {
            return NULL;
        }
        if (!tlm_cpus_count(&oc->named_cpus)) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                        "the list of host CPUs is empty");
            return NULL;
        }
    }
    oc->name = tlm_oc_group_name(oc->proc, errp);
    return oc->name ? g_steal_pointer(&oc) : NULL;
}

void tlm_oc_free(TlmOc *oc)
{
    if (!oc) {
        return;
    }
    tlm_oc_restore(oc, NULL);
    g_string_free(oc->lost, TRUE);
    g_string_free(oc->stale, TRUE);
    g_ptr_array_unref(oc->threads);
    g_free(oc->root);
    g_free(oc->proc);
    g_free(oc->name);
    g_free(oc->cgroup);
    g_free(oc->group);
    g_free(oc->why_not);
    g_free(oc);
}

/*
 * Puts thread number @i back.  It is forgotten unless trying again may help.
 * What stays wrong for good is kept for tlm_oc_restore() to say; what may
 * still be put right is added to @errors, if not NULL.
 */
static void put_back(TlmOc *oc, guint i, GString *errors)
{
    TlmOcThread *t = g_ptr_array_index(oc->threads, i);
    g_autoptr(GError) err = NULL;

    if (t->taken && tlm_oc_thread_alive(oc, t) &&
        !(oc->backend->put_back(oc, t, &err) &&
          tlm_oc_affinity_put_back(oc, t, &err)) &&
        tlm_oc_thread_alive(oc, t)) {
        if (t->taken) {
            if (errors) {
                add_message(errors, NULL, err->message);
            }
            return;
        }
        add_message(oc->lost, NULL, err->message);
    }
    g_ptr_array_remove_index(oc->threads, i);
}

static void put_back_all(TlmOc *oc, GString *errors)
{
    g_autoptr(GError) err = NULL;

    for (guint i = oc->threads->len; i-- > 0; ) {
        put_back(oc, i, errors);
    }
    /* Removing the cgroup would send threads that remain to the wrong place */
    if (!oc->backend || oc->threads->len) {
        return;
    }
    if (!oc->backend->close(oc, &err)) {
        add_message(oc->group ? errors : oc->lost, NULL, err->message);
    }
    if (!oc->group) {
        oc->backend = NULL;
        oc->level = 0;
    }
}

bool tlm_oc_restore(TlmOc *oc, GError **errp)
{
    g_autoptr(GString) errors = g_string_new(NULL);

    put_back_all(oc, errors);
    if (oc->lost->len) {
        add_message(errors, NULL, oc->lost->str);
        g_string_truncate(oc->lost, 0);
    }
    if (errors->len) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE, "%s",
                    errors->str);
    }
    return !errors->len;
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
static int find_thread(TlmOc *oc, pid_t tid)
{
    for (guint i = 0; i < oc->threads->len; i++) {
        TlmOcThread *t = g_ptr_array_index(oc->threads, i);

        if (t->tid == tid) {
            if (tlm_oc_thread_alive(oc, t)) {
                return i;
            }
            g_ptr_array_remove_index(oc->threads, i);
            return -1;
        }
    }
    return -1;
}

/* Puts back the threads that left the list and saves those that joined */
static bool update_threads(TlmOc *oc, const pid_t *tids, size_t n,
                           GError **errp)
{
    for (guint i = oc->threads->len; i-- > 0; ) {
        TlmOcThread *t = g_ptr_array_index(oc->threads, i);

        if (!in_list(tids, n, t->tid)) {
            put_back(oc, i, NULL);
        }
    }
    for (size_t i = 0; i < n; i++) {
        GError *err = NULL;
        TlmOcThread *t;

        if (find_thread(oc, tids[i]) >= 0) {
            continue;
        }
        t = tlm_oc_thread_save(oc, tids[i], &err);
        if (t) {
            g_ptr_array_add(oc->threads, t);
        } else if (err) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                        "cannot save thread %d: %s", (int)tids[i],
                        err->message);
            g_error_free(err);
            return false;
        }
    }
    if (!oc->threads->len) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "none of the %zu threads exists", n);
    }
    return oc->threads->len;
}

static bool choose_cpus(TlmOc *oc, unsigned n, GError **errp)
{
    TlmCpuSet from = { 0 };

    if (oc->named) {
        from = oc->named_cpus;
    } else {
        for (guint i = 0; i < oc->threads->len; i++) {
            TlmOcThread *t = g_ptr_array_index(oc->threads, i);

            tlm_cpus_or(&from, &t->mask);
        }
    }
    tlm_cpus_and(&from, &oc->usable);
    if (tlm_cpus_count(&from) < (oc->named ? n : 1)) {
        g_autofree char *usable = tlm_cpus_format(&oc->usable);

        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "%u of the wanted CPUs can be used here (CPUs %s)",
                    tlm_cpus_count(&from), usable);
        return false;
    }
    tlm_cpus_choose(oc->root, &from, n, &oc->cpus);
    return true;
}

/* The thread is held: it can run on CPUs in use only */
static bool check_taken(TlmOc *oc, TlmOcThread *t, GError **errp)
{
    g_autofree char *is = NULL, *want = NULL;
    TlmCpuSet mask;

    if (oc->backend->quota) {
        return true;
    }
    if (!tlm_oc_thread_mask(oc, t->tid, &mask, NULL, errp)) {
        return false;
    }
    if (tlm_cpus_count(&mask) && tlm_cpus_subset(&mask, &oc->cpus)) {
        return true;
    }
    is = tlm_cpus_format(&mask);
    want = tlm_cpus_format(&oc->cpus);
    g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                "thread %d may run on CPUs %s instead of %s", (int)t->tid, is,
                want);
    return false;
}

static bool take_all(TlmOc *oc, GError **errp)
{
    for (guint i = oc->threads->len; i-- > 0; ) {
        TlmOcThread *t = g_ptr_array_index(oc->threads, i);
        GError *err = NULL;

        t->taken = true;
        if (oc->backend->take(oc, t, &err) && check_taken(oc, t, &err)) {
            continue;
        }
        if (tlm_oc_thread_alive(oc, t)) {
            g_propagate_error(errp, err);
            return false;
        }
        g_error_free(err);
        g_ptr_array_remove_index(oc->threads, i);
    }
    if (!oc->threads->len) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE,
                    "all threads have ended");
    }
    return oc->threads->len;
}

static bool set_level(TlmOc *oc, unsigned n, GError **errp)
{
    if (!oc->backend->quota && !choose_cpus(oc, n, errp)) {
        return false;
    }
    if (!oc->backend->limit(oc, n, errp) || !take_all(oc, errp)) {
        return false;
    }
    oc->level = oc->backend->quota ? n : tlm_cpus_count(&oc->cpus);
    return true;
}

/* Tries one backend; false: not possible, undone, reason added to @why */
static bool try_backend(TlmOc *oc, const TlmOcBackend *backend,
                        const pid_t *tids, size_t n, unsigned cpus,
                        GString *why, GString *not_undone)
{
    bool is_open = oc->backend;
    g_autoptr(GError) err = NULL;

    oc->backend = backend;
    if (update_threads(oc, tids, n, &err) &&
        (is_open || backend->open(oc, &err)) && set_level(oc, cpus, &err)) {
        return true;
    }
    add_message(why, backend->name, err->message);
    put_back_all(oc, not_undone);
    return false;
}

/* What the attempts to make a cgroup have met, once */
static void add_stale(TlmOc *oc, GString *why)
{
    if (oc->stale->len) {
        add_message(why, "left by a process that was killed", oc->stale->str);
        g_string_truncate(oc->stale, 0);
    }
}

static bool check_args(TlmOc *oc, size_t n, unsigned cpus, GError **errp)
{
    if (!n) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                    "no vCPU threads given");
        return false;
    }
    if (cpus < 1 || cpus > TLM_OC_MAX_CPUS) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                    "%u host CPUs is not in 1..%d", cpus, TLM_OC_MAX_CPUS);
        return false;
    }
    if (oc->named && oc->method != TLM_OC_METHOD_QUOTA &&
        cpus > tlm_cpus_count(&oc->named_cpus)) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                    "%u host CPUs asked for, but %u named", cpus,
                    tlm_cpus_count(&oc->named_cpus));
        return false;
    }
    return true;
}

bool tlm_oc_apply(TlmOc *oc, const pid_t *tids, size_t n, unsigned cpus,
                  GError **errp)
{
    const TlmOcBackend *const *backend = candidates(oc->method);
    g_autoptr(GString) why = g_string_new(NULL);
    g_autoptr(GString) not_undone = g_string_new(NULL);

    if (!check_args(oc, n, cpus, errp)) {
        return false;
    }
    if (oc->backend &&
        try_backend(oc, oc->backend, tids, n, cpus, why, not_undone)) {
        return true;
    }
    g_clear_pointer(&oc->why_not, g_free);
    /* A backend that could not be undone is kept for tlm_oc_restore() */
    for (; *backend && !oc->backend; backend++) {
        if (try_backend(oc, *backend, tids, n, cpus, why, not_undone)) {
            add_stale(oc, why);
            oc->why_not = g_strdup(why->str);
            return true;
        }
    }
    add_stale(oc, why);
    if (!*candidates(oc->method)) {
        add_message(why, NULL, "this method does not place threads");
    }
    if (not_undone->len) {
        add_message(why, "not undone", not_undone->str);
    }
    g_set_error(errp, TLM_OC_ERROR, not_undone->len ? TLM_OC_ERROR_RESTORE :
                TLM_OC_ERROR_UNAVAILABLE, "%s", why->str);
    return false;
}
