/*
 * TLM: hosts other than Linux, where the capability is refused
 *
 * Without the capability no migration goes by TLM, so most functions of
 * tlm.h have nothing to do.  The parameters are refused, too, and not shown.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration-tlm.h"
#include "qapi/qapi-commands-migration-tlm-checkpoint.h"
#include "qapi/qapi-commands-migration-tlm-estimate.h"
#include "monitor/hmp.h"
#include "qemu-compat.h"
#include "tlm.h"

static void refuse(Error **errp)
{
    error_setg(errp, "Capability 'tlm' is only supported on Linux hosts");
}

bool tlm_running(void)
{
    return false;
}

bool tlm_check_start(const MigrationAddress *addr, Error **errp)
{
    return true;
}

bool tlm_check_caps(const bool *caps, Error **errp)
{
    if (caps[MIGRATION_CAPABILITY_TLM]) {
        refuse(errp);
        return false;
    }
    return true;
}

void tlm_ram_setup(void)
{
}

int tlm_ram_iterate(QEMUFile *f)
{
    return 0;
}

uint64_t tlm_bytes_remaining(void)
{
    return 0;
}

void tlm_ram_completed(void)
{
}

void tlm_ram_cleanup(void)
{
}

void tlm_free_page_hint(RAMBlock *rb, unsigned long start,
                        unsigned long npages)
{
}

bool tlm_switchover_due(void)
{
    return false;
}

bool tlm_postcopy_due(void)
{
    return false;
}

void tlm_start_postcopy(void)
{
}

void tlm_pong(uint32_t value)
{
}

bool tlm_ram_hand_over(void)
{
    return false;
}

int tlm_send_rest(QEMUFile *f)
{
    return 0;
}

bool tlm_switchover_allowed(void)
{
    return true;
}

bool tlm_is_checkpoint(void)
{
    return false;
}

int tlm_checkpoint(MigrationState *s)
{
    return -ENOTSUP;
}

bool tlm_ram_begin(Error **errp)
{
    return true;
}

void tlm_ram_init_bitmap(RAMBlock *rb, unsigned long pages)
{
    bitmap_set(rb->bmap, 0, pages);
}

void tlm_ram_synced(RAMBlock *rb)
{
}

void tlm_ram_loading(void)
{
}

bool tlm_is_incremental(void)
{
    return false;
}

void tlm_connecting(QIOChannel *ioc)
{
}

bool tlm_connect_dropped(MigrationState *s)
{
    return false;
}

void tlm_cancel(void)
{
}

void tlm_device_state_saved(void)
{
}

void tlm_finished(void)
{
}

void tlm_fill_info(MigrationInfo *info)
{
}

unsigned tlm_channel_group(unsigned id, unsigned channels)
{
    return 0;
}

/* All of them are optional: query-migrate-parameters leaves them out */
void tlm_params_init(MigrationTlmParameters *params)
{
}

void tlm_params_free(MigrationTlmParameters *params)
{
}

bool tlm_params_check(const MigrationParameters *params, Error **errp)
{
    if (params->has_tlm_time_bound || params->has_tlm_bound_action ||
        params->has_tlm_converge || params->has_tlm_dtx ||
        params->has_tlm_dtx_channels || params->has_tlm_epoch ||
        params->has_tlm_overcommit || params->has_tlm_overcommit_method ||
        params->tlm_overcommit_cpus || params->tlm_cgroup) {
        refuse(errp);
        return false;
    }
    return true;
}

/* tlm_params_check() looks at the new values */
void tlm_params_test_apply(const MigrationTlmParameters *src,
                           MigrationTlmParameters *dest)
{
    *dest = *src;
}

void tlm_params_apply(const MigrationTlmParameters *src,
                      MigrationTlmParameters *dest)
{
}

void tlm_params_get(MigrationTlmParameters *dest)
{
}

bool tlm_hmp_set_parameter(const char *param, const char *value,
                           Error **errp)
{
    if (!g_str_has_prefix(param, "tlm-")) {
        return false;
    }
    refuse(errp);
    return true;
}

void tlm_hmp_show_parameters(Monitor *mon,
                             const MigrationTlmParameters *params)
{
}

void qmp_migrate_tlm_switchover(Error **errp)
{
    refuse(errp);
}

void qmp_tlm_checkpoint(MigrationTlmCheckpointOptions *arg, Error **errp)
{
    refuse(errp);
}

void qmp_tlm_checkpoint_forget(Error **errp)
{
    refuse(errp);
}

void qmp_tlm_estimate(uint64_t bandwidth, bool has_window, uint64_t window,
                      Error **errp)
{
    refuse(errp);
}

MigrationTlmEstimate *qmp_query_tlm_estimate(bool has_bandwidth,
                                             uint64_t bandwidth,
                                             bool has_time_bound,
                                             uint64_t time_bound,
                                             bool has_downtime_limit,
                                             uint64_t downtime_limit,
                                             Error **errp)
{
    refuse(errp);
    return NULL;
}
