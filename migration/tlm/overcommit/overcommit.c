/*
 * TLM: vCPU over-commit: runs the vCPU threads on fewer host CPUs
 *
 * Tries the methods one after the other, and says why one could not be used.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "affinity.h"
#include "cgroup.h"
#include "group.h"
#include "hold.h"
#include "overcommit-int.h"
#include "stale.h"

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

static TlmOcSystem make_system(const TlmOcConfig *cfg, const char *root)
{
    return (TlmOcSystem) {
        .root = root,
        .ops = cfg->ops ?: &tlm_oc_real_ops,
        .opaque = cfg->opaque,
    };
}

TlmOc *tlm_oc_new(const TlmOcConfig *cfg, GError **errp)
{
    g_autoptr(TlmOc) oc = g_new0(TlmOc, 1);
    TlmOcHold *h = &oc->hold;

    oc->root = g_strdup(cfg->root ?: "");
    oc->method = cfg->method;
    h->sys = make_system(cfg, oc->root);
    h->proc = cfg->pid ?
              g_strdup_printf("%s/proc/%d", oc->root, (int)cfg->pid) :
              g_strdup_printf("%s/proc/self", oc->root);
    h->cgroup = g_strdup(cfg->cgroup);
    h->lost = g_string_new(NULL);
    h->stale = g_string_new(NULL);
    h->threads = g_ptr_array_new_with_free_func(
                     (GDestroyNotify)tlm_oc_thread_free);

    if (cfg->cgroup && *cfg->cgroup != '/') {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                    "cgroup directory '%s' is not an absolute path",
                    cfg->cgroup);
        return NULL;
    }
    if (cfg->cpus) {
        h->named = true;
        if (!tlm_cpus_parse(cfg->cpus, &h->named_cpus, errp)) {
            return NULL;
        }
        if (!tlm_cpus_count(&h->named_cpus)) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                        "the list of host CPUs is empty");
            return NULL;
        }
    }
    h->name = tlm_oc_group_name(h->proc, errp);
    return h->name ? g_steal_pointer(&oc) : NULL;
}

void tlm_oc_free(TlmOc *oc)
{
    TlmOcHold *h = &oc->hold;

    if (!oc) {
        return;
    }
    tlm_oc_restore(oc, NULL);
    g_string_free(h->lost, TRUE);
    g_string_free(h->stale, TRUE);
    g_ptr_array_unref(h->threads);
    g_free(h->proc);
    g_free(h->name);
    g_free(h->cgroup);
    g_free(h->group);
    g_free(oc->root);
    g_free(oc->why_not);
    g_free(oc);
}

bool tlm_oc_restore(TlmOc *oc, GError **errp)
{
    g_autoptr(GString) errors = g_string_new(NULL);

    tlm_oc_put_back_all(&oc->hold, errors);
    if (oc->hold.lost->len) {
        tlm_oc_add_message(errors, NULL, oc->hold.lost->str);
        g_string_truncate(oc->hold.lost, 0);
    }
    if (errors->len) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE, "%s",
                    errors->str);
    }
    return !errors->len;
}

/* Tries one backend.  False: it failed, is undone, and @why has the reason. */
static bool try_backend(TlmOc *oc, const TlmOcBackend *backend,
                        const pid_t *tids, size_t n, unsigned cpus,
                        GString *why, GString *not_undone)
{
    g_autoptr(GError) err = NULL;

    if (tlm_oc_hold(&oc->hold, backend, tids, n, cpus, &err)) {
        return true;
    }
    tlm_oc_add_message(why, backend->name, err->message);
    tlm_oc_put_back_all(&oc->hold, not_undone);
    return false;
}

/* Adds the cgroups that killed processes left and that could not be removed */
static void add_stale(TlmOc *oc, GString *why)
{
    GString *stale = oc->hold.stale;

    if (stale->len) {
        tlm_oc_add_message(why, "left by a process that was killed",
                           stale->str);
        g_string_truncate(stale, 0);
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
    if (oc->hold.named && oc->method != TLM_OC_METHOD_QUOTA &&
        cpus > tlm_cpus_count(&oc->hold.named_cpus)) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                    "%u host CPUs asked for, but %u named", cpus,
                    tlm_cpus_count(&oc->hold.named_cpus));
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
    if (oc->hold.backend &&
        try_backend(oc, oc->hold.backend, tids, n, cpus, why, not_undone)) {
        return true;
    }
    g_clear_pointer(&oc->why_not, g_free);
    /* A backend that could not be undone stays for tlm_oc_restore() */
    for (; *backend && !oc->hold.backend; backend++) {
        if (try_backend(oc, *backend, tids, n, cpus, why, not_undone)) {
            add_stale(oc, why);
            oc->why_not = g_strdup(why->str);
            return true;
        }
    }
    add_stale(oc, why);
    if (!*candidates(oc->method)) {
        tlm_oc_add_message(why, NULL, "this method does not place threads");
    }
    if (not_undone->len) {
        tlm_oc_add_message(why, "not undone", not_undone->str);
    }
    g_set_error(errp, TLM_OC_ERROR, not_undone->len ? TLM_OC_ERROR_RESTORE :
                TLM_OC_ERROR_UNAVAILABLE, "%s", why->str);
    return false;
}

const char *tlm_oc_method_in_use(const TlmOc *oc)
{
    return oc->hold.backend && oc->hold.level ? oc->hold.backend->name : NULL;
}

unsigned tlm_oc_level(const TlmOc *oc)
{
    return oc->hold.backend ? oc->hold.level : 0;
}

char *tlm_oc_cpus_in_use(const TlmOc *oc)
{
    return tlm_oc_level(oc) && !oc->hold.backend->quota ?
           tlm_cpus_format(&oc->hold.cpus) : NULL;
}

const char *tlm_oc_why_not(const TlmOc *oc)
{
    return tlm_oc_level(oc) && *oc->why_not ? oc->why_not : NULL;
}

bool tlm_oc_cleanup_stale(const TlmOcConfig *cfg, GPtrArray *removed,
                          GError **errp)
{
    g_autoptr(GString) errors = g_string_new(NULL);
    TlmOcSystem sys = make_system(cfg, cfg->root ?: "");

    if (cfg->cgroup) {
        g_autofree char *dir = g_strconcat(sys.root, cfg->cgroup, NULL);

        tlm_oc_clean_below(&sys, dir, removed, errors);
    } else {
        tlm_oc_clean_own(&sys, removed, errors);
    }
    if (errors->len) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_RESTORE, "%s",
                    errors->str);
    }
    return !errors->len;
}
