/*
 * TLM: what all stages of a migration do: be noted, read the log, fail
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-events-migration-tlm.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "internal.h"
#include "trace.h"

void tlm_mark(TlmMigration *m, TlmMark mark)
{
    QEMU_LOCK_GUARD(&m->lock);
    m->mark_ns[mark] = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

void tlm_set_stage(TlmMigration *m, MigrationTlmStage stage)
{
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        m->stage = stage;
    }
    trace_tlm_stage(MigrationTlmStage_str(stage));
    qapi_event_send_migration_tlm_stage(stage);
}

void tlm_fail(MigrationState *s, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    Error *err = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_setg(&err, "%s", text);
    migrate_set_error(s, err);
    error_free(err);
}

int tlm_sync_log(TlmMigration *m)
{
    MigrationState *s = migrate_get_current();
    g_autoptr(GError) gerr = NULL;

    if (m->no_memory) {
        tlm_fail(s, "Not enough memory for the bitmaps of TLM: they need 96 "
                 "KiB per GiB of guest RAM");
        return -EINVAL;
    }
    if (m->ram_loaded) {
        tlm_fail(s, "RAM was loaded from a snapshot during the migration");
        return -EINVAL;
    }
    if (!tlm_guest_ram_layout_unchanged(&m->ram)) {
        tlm_fail(s, "The layout of RAM has changed during the migration");
        return -EINVAL;
    }
    if (!tlm_engine_sync(m->engine, &gerr)) {
        tlm_fail(s, "%s", gerr->message);
        return -EINVAL;
    }
    /* QEMU has counted what is carried over twice */
    stat64_set(&mig_stats.dirty_bytes_last_sync,
               tlm_bytes(m, tlm_engine_owed(m->engine)));
    return 0;
}
