/*
 * TLM burst: what the link carries beyond the bandwidth cap
 *
 * Under a cap the channels write no more than it allows.  This says nothing
 * of what they could write.  But the pacer may save up its bucket, and the
 * channels then write it as fast as the link takes it.  The peer's
 * acknowledgements tell how fast the bytes have arrived.
 *
 * The first bytes are not timed: a token bucket on the way, or buffers,
 * may let them pass at any rate.
 *
 * Pure: no clock, no locks, no QEMU types.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_BURST_H
#define TLM_BURST_H

typedef struct TlmBurst {
    uint64_t first;         /* acknowledged when it was timed first, */
    int64_t first_ns;       /* then; 0: it is not timed yet */
    uint64_t from, to;      /* what is to be timed */
    int64_t last_ns;        /* when it was looked at last */
    int64_t most_ns;        /* a cap's traffic, no burst, takes as long */
    uint64_t bytes;         /* the result; 0: none */
    int64_t ns;
} TlmBurst;

/*
 * Before a burst.
 * @sent: bytes that all channels have sent so far, acknowledged or not
 * @bucket: bytes that may be sent at once; the cap fills it in @fill_ns
 * Returns false if it is too small to tell anything.
 */
bool tlm_burst_begin(TlmBurst *b, uint64_t sent, double bucket,
                     int64_t fill_ns);

/*
 * During the burst, every millisecond or so, in the order of time.
 * @now_ns: any monotonic clock, not 0
 * @acked: bytes that the peer has acknowledged so far, of all channels
 * Returns false when there is nothing more to look at; then @bytes and
 * @ns have the result.
 */
bool tlm_burst_look(TlmBurst *b, int64_t now_ns, uint64_t acked);

#endif
