/*
 * TLM: checks, sets and shows its migration parameters
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qmp/qerror.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-visit-migration.h"
#include "qapi/qobject-input-visitor.h"
#include "qobject/qdict.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "internal.h"
#include "placement.h"
#include "qemu-compat.h"
#include "tlm.h"

#define EPOCH_MIN_MS 20
#define EPOCH_MAX_MS 10000
/* A year: far from where 64 bits of nanoseconds end */
#define BOUND_MAX_MS (365ULL * 24 * 3600 * 1000)

void tlm_params_init(MigrationTlmParameters *params)
{
    *params = (MigrationTlmParameters) {
        .has_tlm_time_bound = true,
        .has_tlm_bound_action = true,
        .tlm_bound_action = MIGRATION_TLM_BOUND_ACTION_COMPLETE,
        .has_tlm_converge = true,
        .tlm_converge = MIGRATION_TLM_CONVERGE_NONE,
        .has_tlm_dtx = true,
        .tlm_dtx = true,
        .has_tlm_dtx_channels = true,
        .has_tlm_epoch = true,
        .has_tlm_overcommit = true,
        .has_tlm_overcommit_method = true,
        .tlm_overcommit_method = MIGRATION_TLM_OVERCOMMIT_METHOD_AUTO,
        .tlm_overcommit_cpus = g_strdup(""),
        .tlm_cgroup = g_strdup(""),
    };
}

void tlm_params_free(MigrationTlmParameters *params)
{
    qapi_free_MigrationTlmOvercommitStepList(params->tlm_overcommit);
    g_free(params->tlm_overcommit_cpus);
    g_free(params->tlm_cgroup);
}

/* tlm_check() looks at the capability, unless it is too late for that */
static bool check_postcopy(const MigrationParameters *params, Error **errp)
{
    bool converge = params->has_tlm_converge &&
        params->tlm_converge == MIGRATION_TLM_CONVERGE_POSTCOPY;
    bool action = params->has_tlm_bound_action &&
        params->tlm_bound_action == MIGRATION_TLM_BOUND_ACTION_POSTCOPY;
    const char *name = converge ? "tlm-converge" : "tlm-bound-action";

    if (!converge && !action) {
        return true;
    }
    if (!TLM_HAS_POSTCOPY) {
        error_setg(errp, "Parameter '%s' cannot be 'postcopy' in this QEMU: "
                   "multifd and post-copy go together from QEMU 10.1 on, at "
                   "both sides", name);
        return false;
    }
    if (tlm_under_way() && !migrate_postcopy_ram()) {
        error_setg(errp, "Parameter '%s' cannot become 'postcopy': this "
                   "migration was started without capability 'postcopy-ram'",
                   name);
        return false;
    }
    return true;
}

bool tlm_params_check(const MigrationParameters *params, Error **errp)
{
    /* multifd reads its number of channels from here */
    if (tlm_under_way() && params->has_multifd_channels &&
        params->multifd_channels != migrate_multifd_channels()) {
        error_setg(errp, "Parameter 'multifd-channels' cannot be changed "
                   "during a migration with capability 'tlm'");
        return false;
    }
    if (params->has_tlm_time_bound &&
        params->tlm_time_bound > BOUND_MAX_MS) {
        error_setg(errp, QERR_INVALID_PARAMETER_VALUE, "tlm-time-bound",
                   "0 (no bound) or at most a year, in milliseconds");
        return false;
    }
    if (!check_postcopy(params, errp)) {
        return false;
    }
    if (params->has_tlm_epoch && params->tlm_epoch &&
        (params->tlm_epoch < EPOCH_MIN_MS ||
         params->tlm_epoch > EPOCH_MAX_MS)) {
        error_setg(errp, QERR_INVALID_PARAMETER_VALUE, "tlm-epoch",
                   "0 (adaptive) or a value between "
                   stringify(EPOCH_MIN_MS) " and " stringify(EPOCH_MAX_MS)
                   " ms");
        return false;
    }
    return tlm_placement_check(params, errp);
}

void tlm_params_test_apply(const MigrationTlmParameters *src,
                           MigrationTlmParameters *dest)
{
    if (src->has_tlm_time_bound) {
        dest->tlm_time_bound = src->tlm_time_bound;
    }
    if (src->has_tlm_bound_action) {
        dest->tlm_bound_action = src->tlm_bound_action;
    }
    if (src->has_tlm_converge) {
        dest->tlm_converge = src->tlm_converge;
    }
    if (src->has_tlm_dtx) {
        dest->tlm_dtx = src->tlm_dtx;
    }
    if (src->has_tlm_dtx_channels) {
        dest->tlm_dtx_channels = src->tlm_dtx_channels;
    }
    if (src->has_tlm_epoch) {
        dest->tlm_epoch = src->tlm_epoch;
    }
    if (src->has_tlm_overcommit) {
        dest->tlm_overcommit = src->tlm_overcommit;
    }
    if (src->has_tlm_overcommit_method) {
        dest->tlm_overcommit_method = src->tlm_overcommit_method;
    }
    if (src->tlm_overcommit_cpus) {
        dest->tlm_overcommit_cpus = src->tlm_overcommit_cpus;
    }
    if (src->tlm_cgroup) {
        dest->tlm_cgroup = src->tlm_cgroup;
    }
}

void tlm_params_apply(const MigrationTlmParameters *src,
                      MigrationTlmParameters *dest)
{
    MigrationTlmParameters old = *dest;

    tlm_params_test_apply(src, dest);
    if (src->has_tlm_overcommit) {
        qapi_free_MigrationTlmOvercommitStepList(old.tlm_overcommit);
        dest->tlm_overcommit = QAPI_CLONE(MigrationTlmOvercommitStepList,
                                          src->tlm_overcommit);
    }
    if (src->tlm_overcommit_cpus) {
        g_free(old.tlm_overcommit_cpus);
        dest->tlm_overcommit_cpus = g_strdup(src->tlm_overcommit_cpus);
    }
    if (src->tlm_cgroup) {
        g_free(old.tlm_cgroup);
        dest->tlm_cgroup = g_strdup(src->tlm_cgroup);
    }
}

void tlm_params_get(MigrationTlmParameters *dest)
{
    MigrationState *s = migrate_get_current();

    g_autofree MigrationTlmParameters *copy =
        QAPI_CLONE(MigrationTlmParameters,
                   qapi_MigrationParameters_base(&s->parameters));

    *dest = *copy;
}

/* The schedule in the notation of the TLM papers: "0.2-(4),0.5-(2)" */
static void hmp_set_schedule(const char *value, Error **errp)
{
    MigrateSetParameters params = { .has_tlm_overcommit = true };

    if (*value &&
        !tlm_placement_parse(value, &params.tlm_overcommit, errp)) {
        return;
    }
    qmp_migrate_set_parameters(&params, errp);
    qapi_free_MigrationTlmOvercommitStepList(params.tlm_overcommit);
}

bool tlm_hmp_set_parameter(const char *param, const char *value,
                           Error **errp)
{
    g_autoptr(QDict) dict = NULL;
    MigrateSetParameters *params = NULL;
    Visitor *v;

    if (!g_str_has_prefix(param, "tlm-")) {
        return false;
    }

    if (g_str_equal(param,
                    MigrationParameter_str(
                        MIGRATION_PARAMETER_TLM_OVERCOMMIT))) {
        hmp_set_schedule(value, errp);
        return true;
    }

    dict = qdict_new();
    qdict_put_str(dict, param, value);
    v = qobject_input_visitor_new_keyval(QOBJECT(dict));
    if (visit_type_MigrateSetParameters(v, NULL, &params, errp)) {
        qmp_migrate_set_parameters(params, errp);
        qapi_free_MigrateSetParameters(params);
    }
    visit_free(v);
    return true;
}

static const char *param_name(MigrationParameter param)
{
    return MigrationParameter_str(param);
}

void tlm_hmp_show_parameters(Monitor *mon,
                             const MigrationTlmParameters *params)
{
    monitor_printf(mon, "%s: %" PRIu64 " ms\n",
                   param_name(MIGRATION_PARAMETER_TLM_TIME_BOUND),
                   params->tlm_time_bound);
    monitor_printf(mon, "%s: %s\n",
                   param_name(MIGRATION_PARAMETER_TLM_BOUND_ACTION),
                   MigrationTlmBoundAction_str(params->tlm_bound_action));
    monitor_printf(mon, "%s: %s\n",
                   param_name(MIGRATION_PARAMETER_TLM_CONVERGE),
                   MigrationTlmConverge_str(params->tlm_converge));
    monitor_printf(mon, "%s: %s\n",
                   param_name(MIGRATION_PARAMETER_TLM_DTX),
                   params->tlm_dtx ? "on" : "off");
    monitor_printf(mon, "%s: %u\n",
                   param_name(MIGRATION_PARAMETER_TLM_DTX_CHANNELS),
                   params->tlm_dtx_channels);
    monitor_printf(mon, "%s: %" PRIu64 " ms\n",
                   param_name(MIGRATION_PARAMETER_TLM_EPOCH),
                   params->tlm_epoch);
    if (params->tlm_overcommit) {
        g_autofree char *text =
            tlm_placement_to_string(params->tlm_overcommit);

        monitor_printf(mon, "%s: %s\n",
                       param_name(MIGRATION_PARAMETER_TLM_OVERCOMMIT), text);
    }
    monitor_printf(mon, "%s: %s\n",
                   param_name(MIGRATION_PARAMETER_TLM_OVERCOMMIT_METHOD),
                   MigrationTlmOvercommitMethod_str(
                       params->tlm_overcommit_method));
    monitor_printf(mon, "%s: '%s'\n",
                   param_name(MIGRATION_PARAMETER_TLM_OVERCOMMIT_CPUS),
                   params->tlm_overcommit_cpus);
    monitor_printf(mon, "%s: '%s'\n",
                   param_name(MIGRATION_PARAMETER_TLM_CGROUP),
                   params->tlm_cgroup);
}
