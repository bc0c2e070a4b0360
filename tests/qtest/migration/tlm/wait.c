/*
 * QTest for TLM: the stages of a migration, and waiting for them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/framework.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "query.h"
#include "wait.h"

#define TIMEOUT_S 120

static GString *stages;

/*
 * Events that somebody waits for with qtest_qmp_eventwait() do not come by
 * here: do not do that on the source.
 */
static bool watch_source(QTestState *who, const char *name, QDict *event,
                         void *opaque)
{
    if (g_str_equal(name, "MIGRATION_TLM_STAGE")) {
        g_string_append_printf(stages, "%s,",
                               qdict_get_str(qdict_get_qdict(event, "data"),
                                             "stage"));
        return true;
    }
    return migrate_watch_for_events(who, name, event, get_src());
}

void tlm_watch_stages(QTestState *from)
{
    qtest_qmp_set_event_callback(from, watch_source, NULL);
    stages = stages ?: g_string_new("");
    tlm_stages_clear();
}

void tlm_stages_clear(void)
{
    g_string_truncate(stages, 0);
}

const char *tlm_stages(void)
{
    return stages->str;
}

void tlm_wait_some(const char *func, int64_t start_us)
{
    if (g_get_monotonic_time() - start_us >= TIMEOUT_S * G_USEC_PER_SEC) {
        g_test_message("%s: not in time; stages %s", func, stages->str);
        g_assert_not_reached();
    }
    g_usleep(1000);
}

void tlm_wait_for_stage(QTestState *from, const char *stage)
{
    g_autofree char *what = g_strdup_printf("%s,", stage);
    int64_t start_us = g_get_monotonic_time();

    while (!g_str_has_suffix(stages->str, what)) {
        /* Any command will do to receive events */
        QDict *rsp = migrate_query(from);
        const char *error = qdict_get_try_str(rsp, "error-desc");

        if (error && !g_str_equal(stage, "done")) {
            g_test_message("in place of stage '%s': %s", stage, error);
            g_assert_null(error);
        }
        qobject_unref(rsp);
        tlm_more_time(start_us);
    }
}

void tlm_wait_for_status(QTestState *from, const char *status)
{
    static const char *ungoals[] = { "completed", NULL };

    wait_for_migration_status(from, status, ungoals);
}

void tlm_wait_for_epochs(QTestState *from, int64_t epochs)
{
    int64_t start_us = g_get_monotonic_time();

    while (tlm_query(from).epochs < epochs) {
        tlm_more_time(start_us);
    }
}
