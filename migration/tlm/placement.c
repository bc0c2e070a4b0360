/*
 * TLM: over-commit during a migration
 *
 * Looks up schedule and vCPUs once an epoch and has their threads placed
 * (overcommit.h), or slowed (throttle.c), or asks a manager to do it.
 * Coordinator only, without the BQL: placing a thread may take
 * milliseconds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qmp/qerror.h"
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "qapi/qapi-events-migration-tlm.h"
#include "hw/core/cpu.h"
#include "migration/migration.h"
#include "overcommit/overcommit.h"
#include "placement.h"
#include "trace.h"

static struct {
    TlmOc *oc;
    TlmOcSchedule *schedule;
    MigrationTlmOvercommitMethod method;
    char *clean;                /* tlm-cgroup, until clean_stale() was there */
    unsigned vcpus;
    GArray *tids;               /* their threads, at the last step taken */
    unsigned wanted;            /* of the step in force; 0: none */
    double speed;               /* asked of throttle.c; else 1 */
    /* for query-migrate as well; under lock */
    QemuMutex lock;
    double share;               /* of full speed that the CPUs amount to */
    int64_t since_ns;           /* share holds since then */
    double lost_ns;             /* before that */
    unsigned cpus;              /* 0: not over-committed */
    MigrationTlmOvercommitMethodInUse in_use;
    char *note;
} placement;

static void __attribute__((constructor)) placement_init(void)
{
    qemu_mutex_init(&placement.lock);
}

static TlmOcSchedule *schedule_of(
    const MigrationTlmOvercommitStepList *list, Error **errp)
{
    g_autoptr(GArray) steps = g_array_new(false, true, sizeof(TlmOcStep));
    g_autoptr(GError) gerr = NULL;
    TlmOcSchedule *schedule;

    for (; list; list = list->next) {
        TlmOcStep step = {
            .progress = list->value->progress,
            .cpus = list->value->cpus,
        };

        g_array_append_val(steps, step);
    }
    schedule = tlm_oc_schedule_new((TlmOcStep *)steps->data, steps->len,
                                   &gerr);
    if (!schedule) {
        error_setg(errp, "Parameter 'tlm-overcommit': %s", gerr->message);
    }
    return schedule;
}

bool tlm_placement_parse(const char *text,
                         MigrationTlmOvercommitStepList **list, Error **errp)
{
    g_autoptr(GError) gerr = NULL;
    g_autoptr(TlmOcSchedule) schedule = tlm_oc_schedule_parse(text, &gerr);
    TlmOcStep step;

    if (!schedule) {
        error_setg(errp, "%s", gerr->message);
        return false;
    }
    for (size_t i = 0; tlm_oc_schedule_step(schedule, i, &step); i++) {
        MigrationTlmOvercommitStep *s = g_new0(MigrationTlmOvercommitStep, 1);

        s->progress = step.progress;
        s->cpus = step.cpus;
        QAPI_LIST_APPEND(list, s);
    }
    return true;
}

char *tlm_placement_to_string(const MigrationTlmOvercommitStepList *list)
{
    g_autoptr(TlmOcSchedule) schedule = schedule_of(list, &error_abort);

    return tlm_oc_schedule_to_string(schedule);
}

static const char *empty_is_null(const char *s)
{
    return s && *s ? s : NULL;
}

bool tlm_placement_check(const MigrationParameters *params, Error **errp)
{
    const char *cpus = empty_is_null(params->tlm_overcommit_cpus);
    const char *cgroup = empty_is_null(params->tlm_cgroup);

    if (params->has_tlm_overcommit && params->tlm_overcommit) {
        g_autoptr(TlmOcSchedule) schedule =
            schedule_of(params->tlm_overcommit, errp);

        if (!schedule) {
            return false;
        }
    }
    if (cpus) {
        TlmOcConfig cfg = { .cpus = cpus };
        g_autoptr(GError) gerr = NULL;
        g_autoptr(TlmOc) oc = tlm_oc_new(&cfg, &gerr);

        /* Else /proc cannot be read, which not every method needs */
        if (!oc && gerr->code != TLM_OC_ERROR_UNAVAILABLE) {
            error_setg(errp, "Parameter 'tlm-overcommit-cpus': %s",
                       gerr->message);
            return false;
        }
    }
    if (cgroup && *cgroup != '/') {
        error_setg(errp, QERR_INVALID_PARAMETER_VALUE, "tlm-cgroup",
                   "an absolute path");
        return false;
    }
    return true;
}

static void set_note(const char *note)
{
    QEMU_LOCK_GUARD(&placement.lock);
    g_free(placement.note);
    placement.note = g_strdup(note);
}

/* The others need nothing of what /proc and cgroups tell */
static bool places_threads(void)
{
    return placement.method != MIGRATION_TLM_OVERCOMMIT_METHOD_THROTTLE &&
           placement.method != MIGRATION_TLM_OVERCOMMIT_METHOD_EVENT;
}

bool tlm_placement_start(Error **errp)
{
    const MigrationParameters *p = &migrate_get_current()->parameters;
    g_autoptr(GError) gerr = NULL;
    TlmOcConfig cfg = {
        .cpus = empty_is_null(p->tlm_overcommit_cpus),
        .cgroup = empty_is_null(p->tlm_cgroup),
    };
    static const TlmOcMethod methods[] = {
        [MIGRATION_TLM_OVERCOMMIT_METHOD_AUTO] = TLM_OC_METHOD_AUTO,
        [MIGRATION_TLM_OVERCOMMIT_METHOD_CGROUP] = TLM_OC_METHOD_CGROUP,
        [MIGRATION_TLM_OVERCOMMIT_METHOD_QUOTA] = TLM_OC_METHOD_QUOTA,
        [MIGRATION_TLM_OVERCOMMIT_METHOD_AFFINITY] = TLM_OC_METHOD_AFFINITY,
    };

    /* Of a migration that ended before it began */
    g_clear_pointer(&placement.oc, tlm_oc_free);
    g_clear_pointer(&placement.schedule, tlm_oc_schedule_free);
    g_clear_pointer(&placement.clean, g_free);
    g_clear_pointer(&placement.tids, g_array_unref);

    set_note(NULL);
    placement.wanted = 0;
    placement.speed = 1;
    placement.share = 1;
    placement.lost_ns = 0;
    placement.since_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    placement.method = p->tlm_overcommit_method;
    if (!p->tlm_overcommit) {
        return true;
    }

    placement.schedule = schedule_of(p->tlm_overcommit, errp);
    if (!placement.schedule) {
        return false;
    }
    if (!places_threads()) {
        return true;
    }

    cfg.method = methods[placement.method];
    placement.oc = tlm_oc_new(&cfg, &gerr);
    if (placement.oc) {
        placement.clean = g_strdup(cfg.cgroup ?: "");
    } else if (gerr->code == TLM_OC_ERROR_UNAVAILABLE) {
        /* As for a method that fails later: the throttle is next */
        set_note(gerr->message);
    } else {
        error_setg(errp, "Cannot over-commit the vCPUs: %s", gerr->message);
        g_clear_pointer(&placement.schedule, tlm_oc_schedule_free);
        return false;
    }
    return true;
}

/* One for each vCPU thread; with single-threaded TCG they share one */
static GArray *vcpu_threads(unsigned *vcpus)
{
    GArray *tids = g_array_new(false, false, sizeof(pid_t));
    CPUState *cpu;

    *vcpus = 0;
    RCU_READ_LOCK_GUARD();
    CPU_FOREACH(cpu) {
        pid_t tid = cpu->thread_id;
        bool known = !tid;      /* not yet started */

        for (unsigned i = 0; i < tids->len; i++) {
            known |= g_array_index(tids, pid_t, i) == tid;
        }
        if (!known) {
            g_array_append_val(tids, tid);
        }
        (*vcpus)++;
    }
    return tids;
}

static bool same_threads(const GArray *a, const GArray *b)
{
    return a && a->len == b->len &&
           !memcmp(a->data, b->data, a->len * sizeof(pid_t));
}

/*
 * What a QEMU that was killed has left may be in the way of other methods
 * than the one that will be used, too
 */
static void clean_stale(void)
{
    g_autofree char *cgroup = g_steal_pointer(&placement.clean);
    TlmOcConfig cfg = { .cgroup = empty_is_null(cgroup) };
    g_autoptr(GError) gerr = NULL;

    if (cgroup && !tlm_oc_cleanup_stale(&cfg, NULL, &gerr)) {
        set_note(gerr->message);
    }
}

/* From now on the vCPUs have @share of full speed */
static void account(double share)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    QEMU_LOCK_GUARD(&placement.lock);
    placement.lost_ns += (1 - placement.share) *
                         (now_ns - placement.since_ns);
    placement.since_ns = now_ns;
    placement.share = share;
}

/*
 * The share of full speed that @cpus amount to by @method.  What throttle.c
 * takes, it accounts for itself.  If and when a manager answers the event
 * is not known: the planner must not count on it.
 */
static double share_of(unsigned cpus, MigrationTlmOvercommitMethodInUse method)
{
    if (method == MIGRATION_TLM_OVERCOMMIT_METHOD_IN_USE_THROTTLE ||
        method == MIGRATION_TLM_OVERCOMMIT_METHOD_IN_USE_EVENT) {
        return 1;
    }
    return MIN(1, (double)cpus / placement.vcpus);
}

static void announce(unsigned cpus, MigrationTlmOvercommitMethodInUse method)
{
    WITH_QEMU_LOCK_GUARD(&placement.lock) {
        placement.cpus = cpus;
        placement.in_use = method;
    }
    trace_tlm_overcommit(cpus, placement.vcpus,
                         MigrationTlmOvercommitMethodInUse_str(method));
    qapi_event_send_migration_tlm_overcommit(cpus, placement.vcpus, method);
}

/* The backends of overcommit/ have QAPI's names */
static MigrationTlmOvercommitMethodInUse method_of(const TlmOc *oc)
{
    return qapi_enum_parse(&MigrationTlmOvercommitMethodInUse_lookup,
                           tlm_oc_method_in_use(oc), -1, &error_abort);
}

double tlm_placement_step(double progress)
{
    MigrationTlmOvercommitMethodInUse method =
        MIGRATION_TLM_OVERCOMMIT_METHOD_IN_USE_THROTTLE;
    g_autoptr(GArray) tids = NULL;
    g_autoptr(GError) gerr = NULL;
    unsigned cpus, vcpus;

    if (!placement.schedule) {
        return 1;
    }
    cpus = tlm_oc_schedule_cpus(placement.schedule, progress);
    if (!cpus) {
        return placement.speed;
    }
    /* The guest may let go of a vCPU at any time */
    tids = vcpu_threads(&vcpus);
    if (cpus == placement.wanted && vcpus == placement.vcpus &&
        same_threads(placement.tids, tids)) {
        return placement.speed;
    }
    placement.wanted = cpus;
    placement.vcpus = vcpus;
    g_clear_pointer(&placement.tids, g_array_unref);
    placement.tids = g_array_ref(tids);
    clean_stale();

    placement.speed = 1;
    if (placement.method == MIGRATION_TLM_OVERCOMMIT_METHOD_EVENT) {
        method = MIGRATION_TLM_OVERCOMMIT_METHOD_IN_USE_EVENT;
    } else if (placement.oc &&
               tlm_oc_apply(placement.oc, (pid_t *)tids->data, tids->len,
                            cpus, &gerr)) {
        const char *why_not = tlm_oc_why_not(placement.oc);

        method = method_of(placement.oc);
        cpus = tlm_oc_level(placement.oc);
        if (why_not) {
            set_note(why_not);
        }
    } else {
        placement.speed = MIN(1, (double)cpus / placement.vcpus);
    }
    if (gerr) {
        set_note(gerr->message);
    }
    account(share_of(cpus, method));
    announce(cpus, method);
    return placement.speed;
}

double tlm_placement_next(double progress)
{
    return placement.schedule ?
           tlm_oc_schedule_next(placement.schedule, progress) : HUGE_VAL;
}

void tlm_placement_end(void)
{
    g_autoptr(GError) gerr = NULL;

    if (placement.oc && !tlm_oc_restore(placement.oc, &gerr)) {
        set_note(gerr->message);
        warn_report("TLM: the vCPUs are not where they were: %s",
                    gerr->message);
    }
    if (placement.cpus) {
        account(1);
        announce(0, placement.in_use);
    }
    g_clear_pointer(&placement.oc, tlm_oc_free);
    g_clear_pointer(&placement.schedule, tlm_oc_schedule_free);
    g_clear_pointer(&placement.tids, g_array_unref);
}

double tlm_placement_share(void)
{
    QEMU_LOCK_GUARD(&placement.lock);
    return placement.share;
}

double tlm_placement_lost_ns(void)
{
    QEMU_LOCK_GUARD(&placement.lock);
    return placement.lost_ns + (1 - placement.share) *
           (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - placement.since_ns);
}

MigrationTlmOvercommit *tlm_placement_info(void)
{
    MigrationTlmOvercommit *info;

    QEMU_LOCK_GUARD(&placement.lock);
    if (!placement.cpus && !placement.note) {
        return NULL;
    }
    info = g_new0(MigrationTlmOvercommit, 1);
    info->has_cpus = info->has_method = placement.cpus;
    info->cpus = placement.cpus;
    info->method = placement.in_use;
    info->note = g_strdup(placement.note);
    return info;
}
