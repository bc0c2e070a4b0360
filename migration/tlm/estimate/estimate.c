/*
 * TLM: the dry run
 *
 * Watches the guest for a short time, and lets the planner predict how long a
 * migration would take.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration-tlm-estimate.h"
#include "migration/migration.h"
#include "estimate.h"
#include "../planner/planner.h"
#include "../qemu-compat.h"

#define WINDOW_DEFAULT_MS 1000
#define WINDOW_MIN_MS 100
#define WINDOW_MAX_MS 60000

/* What QMP sees */
static struct {
    QemuMutex lock;
    MigrationTlmEstimateStatus status;
    uint64_t bandwidth;
    TlmEstimateResult result;      /* if measured */
    char *error;                /* if failed */
} est;

static void __attribute__((constructor)) estimate_init(void)
{
    qemu_mutex_init(&est.lock);
}

static void *estimate_thread(void *opaque)
{
    g_autofree int64_t *window_ns = opaque;
    TlmEstimateResult result;
    Error *err = NULL;
    bool ok;

    rcu_register_thread();
    ok = tlm_estimate_measure(*window_ns, &result, &err);
    WITH_QEMU_LOCK_GUARD(&est.lock) {
        if (ok) {
            est.result = result;
            est.status = MIGRATION_TLM_ESTIMATE_STATUS_MEASURED;
        } else {
            est.error = g_strdup(error_get_pretty(err));
            est.status = MIGRATION_TLM_ESTIMATE_STATUS_FAILED;
        }
    }
    error_free(err);
    rcu_unregister_thread();
    return NULL;
}

void qmp_tlm_estimate(uint64_t bandwidth, bool has_window, uint64_t window,
                      Error **errp)
{
    QemuThread thread;
    int64_t *window_ns;

    if (!has_window) {
        window = WINDOW_DEFAULT_MS;
    }
    if (!bandwidth) {
        error_setg(errp, "Parameter 'bandwidth' must not be 0");
        return;
    }
    if (window < WINDOW_MIN_MS || window > WINDOW_MAX_MS) {
        error_setg(errp, "Parameter 'window' must be between "
                   stringify(WINDOW_MIN_MS) " and " stringify(WINDOW_MAX_MS)
                   " ms");
        return;
    }
    if (!tlm_estimate_possible(errp)) {
        return;
    }

    WITH_QEMU_LOCK_GUARD(&est.lock) {
        if (est.status == MIGRATION_TLM_ESTIMATE_STATUS_MEASURING) {
            error_setg(errp, "A measurement is running");
            return;
        }
        est.status = MIGRATION_TLM_ESTIMATE_STATUS_MEASURING;
        est.bandwidth = bandwidth;
        g_clear_pointer(&est.error, g_free);
    }
    window_ns = g_new(int64_t, 1);
    *window_ns = window * SCALE_MS;
    qemu_thread_create(&thread, "tlm-estimate", estimate_thread, window_ns,
                       QEMU_THREAD_DETACHED);
}

/*
 * The prediction
 */

static MigrationTlmPrediction *predict(const TlmEstimateResult *r,
                                       uint64_t bandwidth,
                                       uint64_t time_bound,
                                       uint64_t downtime_limit,
                                       MigrationTlmConverge converge)
{
    static const TlmPlanConverge ways[] = {
        [MIGRATION_TLM_CONVERGE_NONE] = TLM_PLAN_CONVERGE_NONE,
        [MIGRATION_TLM_CONVERGE_AUTO] = TLM_PLAN_CONVERGE_AUTO,
        [MIGRATION_TLM_CONVERGE_POSTCOPY] = TLM_PLAN_CONVERGE_POSTCOPY,
    };
    const MigrationParameters *mp = &migrate_get_current()->parameters;
    MigrationTlmPrediction *p = g_new0(MigrationTlmPrediction, 1);
    TlmPlanParams params = {
        .time_bound_ms = time_bound,
        .downtime_limit_ms = downtime_limit,
        /* The live stage gets the lower of cap and link */
        .max_bandwidth = mp->max_bandwidth ?
                         MIN(mp->max_bandwidth, bandwidth) : bandwidth,
        .switchover_bandwidth = mp->avail_switchover_bandwidth ?: bandwidth,
        .epoch_ms = mp->tlm_epoch,
        .postcopy_bandwidth = mp->max_postcopy_bandwidth,
        .converge = ways[converge],
        .bound_action = mp->tlm_bound_action ==
                        MIGRATION_TLM_BOUND_ACTION_POSTCOPY ?
                        TLM_PLAN_BOUND_POSTCOPY : TLM_PLAN_BOUND_COMPLETE,
    };
    TlmPlanEstimate estimate = {
        .total_bytes = r->total_bytes,
        .populated_bytes = r->populated_bytes,
        .working_set_bytes = r->working_set_bytes,
        .window_ms = r->window_ms,
        .dirty_rate = r->dirty_rate,
        .bandwidth = bandwidth,
    };
    TlmPlanDecision d;

    tlm_planner_estimate(&params, &estimate, &d);
    p->converge = converge;
    p->total = d.predicted_total_ms;
    p->downtime = d.predicted_downtime_ms;
    p->smallest_bound = d.smallest_bound_ms;
    p->bound_reachable = d.bound_reachable;
    p->downtime_reachable = d.downtime_reachable;
    return p;
}

MigrationTlmEstimate *qmp_query_tlm_estimate(bool has_bandwidth,
                                             uint64_t bandwidth,
                                             bool has_time_bound,
                                             uint64_t time_bound,
                                             bool has_downtime_limit,
                                             uint64_t downtime_limit,
                                             Error **errp)
{
    const MigrationParameters *mp = &migrate_get_current()->parameters;
    MigrationTlmEstimate *e;
    TlmEstimateResult r;

    if (has_bandwidth && !bandwidth) {
        error_setg(errp, "Parameter 'bandwidth' must not be 0");
        return NULL;
    }

    e = g_new0(MigrationTlmEstimate, 1);
    WITH_QEMU_LOCK_GUARD(&est.lock) {
        e->status = est.status;
        e->error = g_strdup(est.error);
        bandwidth = has_bandwidth ? bandwidth : est.bandwidth;
        r = est.result;
    }
    if (e->status != MIGRATION_TLM_ESTIMATE_STATUS_MEASURED) {
        return e;
    }

    e->has_bandwidth = true;
    e->bandwidth = bandwidth;
    e->has_window = true;
    e->window = r.window_ms;
    e->has_total_bytes = true;
    e->total_bytes = r.total_bytes;
    e->has_populated_bytes = r.populated_known;
    e->populated_bytes = r.populated_bytes;
    e->has_working_set_bytes = true;
    e->working_set_bytes = r.working_set_bytes;
    e->has_dirty_rate = true;
    e->dirty_rate = r.dirty_rate;

    time_bound = has_time_bound ? time_bound : mp->tlm_time_bound;
    downtime_limit = has_downtime_limit ? downtime_limit
                                        : mp->downtime_limit;
    e->has_predictions = true;
    for (int c = MIGRATION_TLM_CONVERGE__MAX - 1; c >= 0; c--) {
        if (c == MIGRATION_TLM_CONVERGE_POSTCOPY && !TLM_HAS_POSTCOPY) {
            continue;
        }
        QAPI_LIST_PREPEND(e->predictions,
                          predict(&r, bandwidth, time_bound, downtime_limit,
                                  c));
    }
    return e;
}
