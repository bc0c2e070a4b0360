/*
 * TLM checkpoint: the end of one that nobody asks for any more
 *
 * A client that was killed leaves its checkpoint behind.  It may be held, or
 * wait for a server that hangs: then it would have no end, and neither would
 * its dirty log and its copies.  So a client can say how often it will ask,
 * by "query-migrate"; if it does not, the checkpoint is cancelled, in whatever
 * stage, and the guest runs on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "migration/migration.h"
#include "../internal.h"
#include "lease.h"

static struct {
    /* All under the BQL */
    QEMUTimer *timer;           /* of the main loop; NULL: there is no lease */
    uint64_t timeout_ms;
} lease;

static void expired(void *opaque)
{
    tlm_fail(migrate_get_current(), "No client has asked for the checkpoint "
             "by 'query-migrate' for %" PRIu64 " ms, its 'client-timeout'",
             lease.timeout_ms);
    qmp_migrate_cancel(&error_abort);
}

void tlm_lease_start(uint64_t timeout_ms)
{
    if (timeout_ms) {
        lease.timeout_ms = timeout_ms;
        lease.timer = timer_new_ms(QEMU_CLOCK_REALTIME, expired, NULL);
        tlm_lease_renew();
    }
}

void tlm_lease_renew(void)
{
    if (lease.timer) {
        timer_mod(lease.timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                               lease.timeout_ms);
    }
}

void tlm_lease_stop(void)
{
    g_clear_pointer(&lease.timer, timer_free);
}
