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

/* A member that is an object, and must be there */
static QDict *group(QDict *dict, const char *name)
{
    QDict *members;

    g_assert_nonnull(dict);
    members = qdict_get_qdict(dict, name);
    g_assert_nonnull(members);
    return members;
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
    QDict *ram = group(tlm, "ram");
    TlmInfo info = {
        .stage = g_intern_string(qdict_get_str(tlm, "stage")),
        .progress = number(tlm, "progress"),
        .eta = qdict_get_int(group(tlm, "prediction"), "eta"),
        .epochs = qdict_get_int(group(tlm, "epochs"), "count"),
        .passed_bytes = qdict_get_int(ram, "passed"),
        .mtx_bytes = qdict_get_int(ram, "mtx"),
        .dtx_bytes = qdict_get_int(ram, "dtx"),
        .stop_bytes = qdict_get_int(ram, "stop"),
        .skipped_bytes = qdict_get_int(ram, "skipped"),
        .resent_bytes = qdict_get_int(ram, "resent"),
        .unsent_bytes = qdict_get_int(ram, "unsent"),
        .dirty_bytes = qdict_get_int(ram, "dirty"),
        .hot_bytes = qdict_get_int(ram, "hot"),
        .postcopy_owed = -1,
        .postcopy_remaining = -1,
        .downtime_us = downtime_us(tlm),
    };

    if (qdict_haskey(tlm, "postcopy")) {
        QDict *postcopy = group(tlm, "postcopy");

        info.postcopy_owed = qdict_get_int(postcopy, "owed");
        info.postcopy_remaining = qdict_get_int(postcopy, "remaining");
    }

    if (qdict_haskey(tlm, "overcommit")) {
        QDict *overcommit = group(tlm, "overcommit");

        info.overcommit_cpus = qdict_get_try_int(overcommit, "cpus", 0);
        info.overcommit_method = g_intern_string(
            qdict_get_try_str(overcommit, "method"));
    }
    return info;
}

TlmInfo tlm_query(QTestState *from)
{
    QDict *rsp = migrate_query(from);
    TlmInfo info = tlm_info(rsp);

    qobject_unref(rsp);
    return info;
}
