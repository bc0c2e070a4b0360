/*
 * TLM checkpoint: the wait for the manager, with the guest stopped
 *
 * As of any migration, but it has an end: a manager that has died must not
 * keep the guest stopped.  "migrate-continue" runs under the BQL, and so does
 * what is done about the time-out.  Whoever takes the BQL first has its way: a
 * "migrate-continue" that was answered without an error is never too late.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "../continue.h"
#include "../internal.h"
#include "gate.h"
#include "pause.h"

bool tlm_gate_pass(MigrationState *s, uint64_t timeout_ms)
{
    bool came;

    if (s->state == MIGRATION_STATUS_CANCELLING) {
        return false;
    }
    if (!migrate_pause_before_switchover()) {
        migrate_set_state(&s->state, s->state, MIGRATION_STATUS_DEVICE);
        return true;
    }
    tlm_continue_forget(s);
    migrate_set_state(&s->state, s->state, MIGRATION_STATUS_PRE_SWITCHOVER);
    tlm_pause_drop_bql();
    came = tlm_continue_wait(s, timeout_ms);
    tlm_pause_take_bql();
    came = came || tlm_continue_came(s);
    if (!came && s->state == MIGRATION_STATUS_PRE_SWITCHOVER) {
        tlm_fail(s, "The guest has waited for 'migrate-continue' for %" PRIu64
                 " ms, the 'gate-timeout' of the checkpoint, and runs on",
                 timeout_ms);
        migrate_set_state(&s->state, MIGRATION_STATUS_PRE_SWITCHOVER,
                          MIGRATION_STATUS_FAILED);
    }
    /* Unless it was cancelled, or the time bound has passed, meanwhile */
    migrate_set_state(&s->state, MIGRATION_STATUS_PRE_SWITCHOVER,
                      MIGRATION_STATUS_DEVICE);
    return s->state == MIGRATION_STATUS_DEVICE;
}
