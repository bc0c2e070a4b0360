/*
 * TLM: the end of a migration by post-copy
 *
 * When the pass is over, what the guest rewrites all the time is still owed.
 * Instead of stopping the guest while it is sent, QEMU's own post-copy lets the
 * guest go on at the destination, which asks for the pages that it lacks.
 * From then on all is QEMU's code; TLM only tells how it goes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "checkpoint/options.h"
#include "postcopy.h"
#include "tlm.h"

/*
 * QEMU's own, behind the device state: postcopy_start() in migration.c.  The
 * destination answers when it has loaded that, and starts the guest then.
 */
#define PING_LOADED 3

bool tlm_postcopy_wanted(void)
{
    MigrationState *s = migrate_get_current();

    return migrate_postcopy_ram() && !tlm_is_checkpoint() &&
           (s->parameters.tlm_converge == MIGRATION_TLM_CONVERGE_POSTCOPY ||
            qatomic_read(&s->start_postcopy));
}

bool tlm_postcopy_check(Error **errp)
{
    const MigrationParameters *p = &migrate_get_current()->parameters;
    bool converge = p->tlm_converge == MIGRATION_TLM_CONVERGE_POSTCOPY;
    bool action = p->tlm_bound_action == MIGRATION_TLM_BOUND_ACTION_POSTCOPY;

    if (tlm_is_checkpoint()) {
        if (migrate_postcopy_ram()) {
            error_setg(errp, "A checkpoint does not go with capability "
                       "'postcopy-ram'; turn it off");
            return false;
        }
        return true;
    }
    if ((converge || action) && !migrate_postcopy_ram()) {
        error_setg(errp, "Parameter '%s' set to 'postcopy' requires capability "
                   "'postcopy-ram'", converge ? "tlm-converge" :
                                                "tlm-bound-action");
        error_append_hint(errp, "Turn on 'postcopy-ram' at both sides, which "
                          "must be QEMU 10.1 or later.\n");
        return false;
    }
    return true;
}

void tlm_postcopy_pong(TlmMigration *m, uint32_t value)
{
    if (value == PING_LOADED) {
        tlm_mark(m, TLM_MARK_TAKEN_OVER);
    }
}

uint64_t tlm_postcopy_downtime_us(const TlmMigration *m)
{
    int64_t end_ns = m->mark_ns[TLM_MARK_TAKEN_OVER];

    return end_ns ? (end_ns - m->mark_ns[TLM_MARK_STOPPING]) / SCALE_US : 0;
}

MigrationTlmPostcopy *tlm_postcopy_info(const TlmMigration *m, int64_t now_ns)
{
    MigrationTlmPostcopy *p;
    uint64_t left;
    int64_t ns;

    if (!m->mark_ns[TLM_MARK_POSTCOPY]) {
        return NULL;
    }
    left = m->running ? MIN(ram_bytes_remaining(), m->postcopy_bytes) : 0;
    ns = now_ns - m->mark_ns[TLM_MARK_POSTCOPY];
    p = g_new0(MigrationTlmPostcopy, 1);
    p->owed = m->postcopy_bytes;
    p->remaining = left;
    p->time = ns / SCALE_MS;
    p->bandwidth = ns > 0 ? (migration_transferred_bytes() - m->postcopy_sent)
                            * (double)NANOSECONDS_PER_SECOND / ns : 0;
    p->requests = stat64_get(&mig_stats.postcopy_requests);
    p->downtime = tlm_postcopy_downtime_us(m);
    return p;
}
