/*
 * TLM pacer: keeps the bandwidth cap across all channels of both groups
 *
 * The pacer is a token bucket with carried debt.  It knows of bytes only once
 * a channel has written them.  So the batch size bounds the bytes in flight,
 * and bytes that were written too early are paid back before the next batch.
 *
 * With F bytes in flight at most and a bucket of T bytes, no window of
 * one second sees more than rate + T + F bytes.  F and T are chosen so
 * that this is at most 1.05 times the rate, see tlm_pacer_set_rate().
 *
 * Pure: no clock, no locks, no QEMU types.  The caller serialises all
 * calls on one pacer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PACER_H
#define TLM_PACER_H

/* Batches that a channel can hold without having accounted for them */
#define TLM_PACER_BATCHES_IN_FLIGHT 2

typedef struct TlmPacer {
    int64_t last_ns;        /* when the bucket was last filled */
    uint64_t last_sent;     /* bytes accounted for so far */
    uint64_t rate;          /* bytes/s as asked for; 0: unlimited */
    double fill_rate;       /* bytes/s that fill the bucket */
    double tokens;          /* bytes; negative: debt */
    double bucket;          /* bytes; what may be saved up */
    double in_flight;       /* bytes; what may be under way unaccounted */
    int64_t held_ns;        /* for so long it has held the channels back */
    int64_t told_ns;        /* the wait that it has asked for last */
    unsigned channels;
    bool saving;            /* until the bucket is full */
    bool rebase;            /* the next sent_bytes is a new start */
} TlmPacer;

/*
 * Start without a cap.
 * @now_ns: any monotonic clock, the same one for all calls
 * @sent_bytes: bytes sent so far by all channels, see tlm_pacer_wait_ns()
 */
void tlm_pacer_init(TlmPacer *p, int64_t now_ns, uint64_t sent_bytes);

/*
 * Set the cap; may be called at any time.  Debt is kept.
 * @bytes_per_s: the cap on all channels together; 0: unlimited
 * @channels: channels that send; each may hold
 *            TLM_PACER_BATCHES_IN_FLIGHT batches unaccounted
 */
void tlm_pacer_set_rate(TlmPacer *p, uint64_t bytes_per_s,
                        unsigned channels);

/*
 * Account for what has been sent and say when the next batch may be
 * queued.
 * @sent_bytes: cumulative bytes written by all channels; a value below
 *              the last one counts as nothing sent
 *
 * Returns 0 if a batch may be queued now, else the nanoseconds until it
 * may (never more than a second, so that the caller notices a new rate).
 */
int64_t tlm_pacer_wait_ns(TlmPacer *p, int64_t now_ns, uint64_t sent_bytes);

/*
 * Queue nothing before the bucket is full.  Then its content goes out in one
 * burst.  The cap is kept, and only a moment is lost.  Returns the size of the
 * bucket in bytes, 0 without a cap.
 */
double tlm_pacer_save_up(TlmPacer *p);

/* Nanoseconds in which the cap fills the bucket; 0 without a cap */
int64_t tlm_pacer_fill_ns(const TlmPacer *p);

/*
 * Pages in a batch: few enough that all channels' unaccounted batches
 * together cannot break the cap, at least 1 and at most @max_pages.
 */
unsigned tlm_pacer_batch_pages(const TlmPacer *p, size_t page_size,
                               unsigned max_pages);

#endif
