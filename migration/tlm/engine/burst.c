/*
 * TLM burst: what the link carries beyond the bandwidth cap
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "burst.h"

/*
 * The first bytes are not timed.  Shapers commonly have buckets of up to
 * 1 MiB; bytes beyond that have waited for the link.
 */
#define UNTIMED_BYTES   1250000
/* At least so much is timed: 4 ms at 300 MB/s, of which a look takes 1 ms */
#define TIMED_BYTES     1250000
/*
 * The end of a burst is not timed either: TCP may acknowledge the last
 * segments of all channels late, when no more bytes follow
 */
#define TAIL_SHARE      0.05

bool tlm_burst_begin(TlmBurst *b, uint64_t sent, double bucket,
                     int64_t fill_ns)
{
    *b = (TlmBurst) {};
    if (bucket < UNTIMED_BYTES + TIMED_BYTES) {
        return false;
    }
    b->from = sent + UNTIMED_BYTES;
    b->to = sent + (uint64_t)(bucket * (1 - TAIL_SHARE));
    b->most_ns = fill_ns * ((b->to - b->from) / bucket);
    return true;
}

static void done(TlmBurst *b, uint64_t bytes, int64_t ns)
{
    if (ns > 0) {
        b->bytes = bytes;
        b->ns = ns;
    }
}

bool tlm_burst_look(TlmBurst *b, int64_t now_ns, uint64_t acked)
{
    int64_t last_ns = b->last_ns;

    b->last_ns = now_ns;
    if (!b->first_ns) {
        if (acked < b->from) {
            return true;
        }
        if (acked >= b->to) {
            /* between two looks: not all that it has been, but fast */
            done(b, b->to - b->from, last_ns ? now_ns - last_ns : 0);
            return false;
        }
        b->first = acked;
        b->first_ns = now_ns;
        return true;
    }
    if (acked >= b->to) {
        done(b, acked - b->first, now_ns - b->first_ns);
        return false;
    }
    return now_ns - b->first_ns <= b->most_ns;
}
