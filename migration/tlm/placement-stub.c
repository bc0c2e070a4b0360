/*
 * TLM: a QEMU that was built without over-commit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "qapi/error.h"
#include "placement.h"

static void refuse(Error **errp)
{
    error_setg(errp, "This QEMU was built without over-commit of vCPUs"
               " (--disable-tlm-overcommit)");
}

bool tlm_placement_check(const MigrationParameters *params, Error **errp)
{
    if (params->tlm_overcommit ||
        params->tlm_overcommit_method !=
        MIGRATION_TLM_OVERCOMMIT_METHOD_AUTO ||
        (params->tlm_overcommit_cpus && *params->tlm_overcommit_cpus) ||
        (params->tlm_cgroup && *params->tlm_cgroup)) {
        refuse(errp);
        return false;
    }
    return true;
}

bool tlm_placement_parse(const char *text,
                         MigrationTlmOvercommitStepList **list, Error **errp)
{
    refuse(errp);
    return false;
}

char *tlm_placement_to_string(const MigrationTlmOvercommitStepList *list)
{
    g_assert_not_reached();
}

bool tlm_placement_start(Error **errp)
{
    return true;
}

double tlm_placement_step(double progress)
{
    return 1;
}

double tlm_placement_next(double progress)
{
    return HUGE_VAL;
}

void tlm_placement_end(void)
{
}

double tlm_placement_share(void)
{
    return 1;
}

double tlm_placement_lost_ns(void)
{
    return 0;
}

void tlm_placement_fill_info(MigrationTlmInfo *t)
{
}
