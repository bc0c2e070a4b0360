/*
 * TLM: HMP commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-migration-tlm.h"
#include "monitor/hmp.h"

void hmp_migrate_tlm_switchover(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_migrate_tlm_switchover(&err);
    hmp_handle_error(mon, err);
}
