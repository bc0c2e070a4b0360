/*
 * QTest for TLM: what query-migrate says of a migration with 'tlm'
 *
 * The only place that knows the names of the members of MigrationTlmInfo and
 * its groups.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_QUERY_H
#define TLM_TEST_QUERY_H

#include "libqtest.h"
#include "qobject/qdict.h"

/* What the tests look at, in QMP's units but for downtime_us */
typedef struct TlmInfo {
    const char *stage;
    double progress;
    int64_t eta;
    int64_t epochs;
    int64_t passed_bytes;
    int64_t mtx_bytes, dtx_bytes, stop_bytes;
    int64_t skipped_bytes, resent_bytes;
    int64_t unsent_bytes, dirty_bytes, hot_bytes;
    unsigned overcommit_cpus;           /* 0: not over-committed */
    const char *overcommit_method;      /* NULL: not over-committed */
    int64_t postcopy_owed;              /* bytes; -1: not by post-copy */
    int64_t postcopy_remaining;
    int64_t downtime_us;                /* sum of its parts; -1: not yet */
} TlmInfo;

/* Of a reply of query-migrate, which must have it */
TlmInfo tlm_info(QDict *rsp);

/* The same, asked for now */
TlmInfo tlm_query(QTestState *from);

/* Does the reply say anything of TLM? */
bool tlm_info_present(QDict *rsp);

#endif
