/*
 * QTest for TLM: what query-migrate says of a migration with 'tlm'
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/migration-qmp.h"
#include "qobject/qnum.h"
#include "query.h"

/* A number that may have no fraction in the reply */
static double number(QDict *dict, const char *name)
{
    QNum *num = qobject_to(QNum, qdict_get(dict, name));

    g_assert_nonnull(num);
    return qnum_get_double(num);
}

static int64_t downtime_us(QDict *tlm)
{
    static const char *const parts[] = {
        "vm-stop", "sync", "ram", "hold", "device", "switchover",
    };
    QDict *downtime = qdict_get_qdict(tlm, "downtime");
    int64_t sum = 0;

    for (unsigned i = 0; downtime && i < ARRAY_SIZE(parts); i++) {
        sum += qdict_get_int(downtime, parts[i]);
    }
    return downtime ? sum : -1;
}

bool tlm_info_present(QDict *rsp)
{
    return qdict_haskey(rsp, "tlm");
}

TlmInfo tlm_info(QDict *rsp)
{
    QDict *tlm = qdict_get_qdict(rsp, "tlm");

    g_assert_nonnull(tlm);
    return (TlmInfo) {
        .stage = g_intern_string(qdict_get_str(tlm, "stage")),
        .progress = number(tlm, "progress"),
        .eta = qdict_get_int(tlm, "eta"),
        .epochs = qdict_get_int(tlm, "epochs"),
        .passed_bytes = qdict_get_int(tlm, "passed-bytes"),
        .mtx_bytes = qdict_get_int(tlm, "mtx-bytes"),
        .dtx_bytes = qdict_get_int(tlm, "dtx-bytes"),
        .stop_bytes = qdict_get_int(tlm, "stop-bytes"),
        .skipped_bytes = qdict_get_int(tlm, "skipped-bytes"),
        .resent_bytes = qdict_get_int(tlm, "resent-bytes"),
        .unsent_bytes = qdict_get_int(tlm, "unsent-bytes"),
        .dirty_bytes = qdict_get_int(tlm, "dirty-bytes"),
        .hot_bytes = qdict_get_int(tlm, "hot-bytes"),
        .overcommit_cpus = qdict_get_try_int(tlm, "overcommit-cpus", 0),
        .overcommit_method = g_intern_string(
            qdict_get_try_str(tlm, "overcommit-method")),
        .downtime_us = downtime_us(tlm),
    };
}

TlmInfo tlm_query(QTestState *from)
{
    QDict *rsp = migrate_query(from);
    TlmInfo info = tlm_info(rsp);

    qobject_unref(rsp);
    return info;
}
