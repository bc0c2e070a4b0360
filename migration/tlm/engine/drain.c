/*
 * TLM engine: lets the lanes run empty before the device state is sent
 *
 * A lane is done with a batch when the kernel has taken it; megabytes may
 * still be queued there.  The device state goes over a connection of its own,
 * which has been idle.  Behind such a queue it competes with all lanes, from a
 * small congestion window, and each lost packet costs a retransmission
 * timeout.  The destination does not look at it before it has all of RAM, so
 * the wait costs a round trip at most.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "engine-int.h"
#include "../trace.h"

/* No acknowledgement for so long: waiting for the queue is of no use */
#define STALLED_NS (50 * SCALE_MS)
/*
 * A lane's last segment, 64 KiB at most: TCP may acknowledge it as late as
 * 40 ms after its arrival
 */
#define TAIL_BYTES (64 << 10)

static void wait_empty(TlmEngine *e)
{
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t now_ns = start_ns, moved_ns = start_ns;
    uint64_t first = e->c.sink_ops->queued(e->c.sink), left = first;
    uint64_t tail = e->c.sink_ops->lanes(e->c.sink) * TAIL_BYTES;

    QEMU_LOCK_GUARD(&e->lock);

    while (left > tail && !e->cancelled && now_ns < moved_ns + STALLED_NS) {
        uint64_t before = left;

        /* The kernel does not tell; done is signalled when cancelled */
        qemu_cond_timedwait(&e->done, &e->lock, 1);
        left = e->c.sink_ops->queued(e->c.sink);
        now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        if (left < before) {
            moved_ns = now_ns;
        }
    }
    trace_tlm_drain(first, left, (now_ns - start_ns) / SCALE_US);
}

int tlm_engine_drain(TlmEngine *e)
{
    int ret = e->c.sink_ops->wait_idle(e->c.sink);

    if (!ret) {
        wait_empty(e);
    }
    return ret;
}
