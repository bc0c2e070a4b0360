/*
 * TLM: asks the destination whether it has loaded all that was sent
 *
 * A destination on a busy host, or one that writes zero pages, which are small
 * on the wire, may be far behind.  A guest that is stopped then waits until the
 * destination has caught up.  So a ping follows all that was sent, and the
 * guest runs, slowed or not, until the pong comes.  The main thread of the
 * destination answers only when all multifd channels have come to their last
 * sync.  This needs a return path.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/savevm.h"
#include "checkpoint/options.h"
#include "settle.h"
#include "tlm.h"
#include "trace.h"

/*
 * Pings that QEMU's own code does not send: "TLM" and a number.  An answer that
 * was not waited for long enough is none to the next ping.
 */
#define PING_SETTLE      0x544c4d00
#define PING_NUMBER_MASK 0xff
/*
 * A guest that goes on dirtying while the link is idle could keep the live
 * stage from ending: no more attempts
 */
#define ATTEMPTS         3
/*
 * The decision to stop stands if at most one part in so many has come on top:
 * less than the planner's margin in the downtime limit (DOWNTIME_AIM)
 */
#define GROWTH_PART      16

static struct {
    /* Coordinator */
    enum { NOT_DUE, DUE, ASKED } state;
    unsigned attempts;
    int64_t limit_ns;
    uint64_t owed;              /* pages, when it was decided */
    /* Any thread */
    uint32_t ping;
    bool answered;
} settle;

void tlm_settle_reset(void)
{
    settle.state = NOT_DUE;
    settle.attempts = 0;
}

bool tlm_settle_begin(TlmMigration *m, const TlmPlanDecision *decision)
{
    MigrationState *s = migrate_get_current();

    if (!decision->settle_ms || settle.attempts >= ATTEMPTS ||
        !s->rp_state.rp_thread_created || tlm_is_checkpoint()) {
        return false;
    }
    settle.state = DUE;
    settle.attempts++;
    settle.limit_ns = decision->settle_ms * SCALE_MS;
    settle.owed = tlm_engine_owed(m->engine);
    return true;
}

void tlm_settle_ask(QEMUFile *f)
{
    uint32_t number = (settle.ping + 1) & PING_NUMBER_MASK;

    if (settle.state != DUE) {
        return;
    }
    settle.state = ASKED;
    qatomic_set(&settle.answered, false);
    qatomic_set(&settle.ping, PING_SETTLE | number);
    qemu_savevm_send_ping(f, PING_SETTLE | number);
}

bool tlm_settle_asked(void)
{
    return settle.state == ASKED;
}

int tlm_settle_wait(TlmMigration *m)
{
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    TlmEpoch epoch = { .ns = settle.limit_ns, .linger = true };
    TlmEngineCounters c;
    int ret;

    settle.state = NOT_DUE;
    tlm_engine_counters(m->engine, &c);
    epoch.walk_end = c.passed;
    tlm_sample_begin(m);
    ret = tlm_engine_run(m->engine, &epoch);
    tlm_engine_heed(m->engine);
    trace_tlm_settle(qatomic_read(&settle.answered),
                     (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns) /
                     SCALE_US);
    return ret;
}

bool tlm_settle_stands(TlmMigration *m)
{
    return tlm_engine_owed(m->engine) <=
           settle.owed + settle.owed / GROWTH_PART;
}

void tlm_settle_pong(TlmMigration *m, uint32_t value)
{
    if (value == qatomic_read(&settle.ping)) {
        qatomic_set(&settle.answered, true);
        tlm_engine_interrupt(m->engine);
    }
}
