/*
 * TLM pacer: keeps the bandwidth cap across all channels of both groups
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "pacer.h"

#define NS_PER_S 1000000000.0

/*
 * Shares of one second's bytes.  A second sees at most
 *
 *     FILL + bucket + in flight <= 1 + OVERSHOOT
 *
 * A sender that wakes up too late may catch up by the bucket.  The larger the
 * bucket, the less a busy host costs, and the more a burst tells.
 */
#define OVERSHOOT        0.047
#define IN_FLIGHT_SHARE  0.0125
#define BUCKET_MIN_SHARE 0.005
#define FILL_MIN         0.985

/* A batch of one small page with its multifd packet header */
#define SMALLEST_BATCH   (4096 + 1152)
#define PACKET_HEADER    1152

#define MAX_WAIT_NS      1000000000LL

void tlm_pacer_init(TlmPacer *p, int64_t now_ns, uint64_t sent_bytes)
{
    *p = (TlmPacer) {
        .last_ns = now_ns,
        .last_sent = sent_bytes,
        .channels = 1,
    };
}

void tlm_pacer_set_rate(TlmPacer *p, uint64_t bytes_per_s, unsigned channels)
{
    double rate = bytes_per_s;
    double fill = 1.0;
    double in_flight, least, bucket;

    channels = MAX(channels, 1);
    if (bytes_per_s == p->rate && channels == p->channels) {
        return;
    }
    if (!p->rate) {
        /* Bytes that were sent without a cap are no debt under one */
        p->rebase = true;
        p->tokens = 0;
    } else if (p->tokens < 0 && bytes_per_s < p->rate) {
        /* Paying debt of the old rate takes no longer at the new one */
        p->tokens *= rate / p->rate;
    }
    p->rate = bytes_per_s;
    p->channels = channels;

    /*
     * Under a slow cap with many channels even batches of one page are a
     * large share.  Then save up less, and fill a little more slowly.
     */
    in_flight = rate * IN_FLIGHT_SHARE;
    least = (double)channels * TLM_PACER_BATCHES_IN_FLIGHT * SMALLEST_BATCH;
    in_flight = MAX(in_flight, least);
    bucket = rate * OVERSHOOT - in_flight;
    if (bucket < rate * BUCKET_MIN_SHARE) {
        bucket = rate * BUCKET_MIN_SHARE;
        fill = 1.0 + OVERSHOOT - (in_flight + bucket) / MAX(rate, 1.0);
        fill = CLAMP(fill, FILL_MIN, 1.0);
    }

    p->in_flight = in_flight;
    p->bucket = bucket;
    p->fill_rate = rate * fill;
    p->tokens = MIN(p->tokens, bucket);
}

int64_t tlm_pacer_wait_ns(TlmPacer *p, int64_t now_ns, uint64_t sent_bytes)
{
    double spent = 0, filled = 0, elapsed, wait;

    if (p->rebase) {
        p->rebase = false;
        p->last_ns = now_ns;
        p->last_sent = sent_bytes;
    }
    if (sent_bytes > p->last_sent) {
        spent = (double)(sent_bytes - p->last_sent);
    }
    if (now_ns > p->last_ns) {
        elapsed = (double)now_ns - (double)p->last_ns;
        p->held_ns += MIN(elapsed, p->told_ns);
        filled = elapsed / NS_PER_S * p->fill_rate;
    }
    /* A clock that has jumped back starts anew: no credit, no long wait */
    p->last_ns = now_ns;

    /*
     * When the bucket overflows depends on the order of events, which is not
     * known.  If the channels kept up with the cap, assume that they wrote
     * evenly.  If they wrote much less, the link was stalled: the bytes that
     * piled up meanwhile come last and count in full.
     */
    p->tokens += filled;
    if (spent < filled / 2) {
        p->tokens = MIN(p->tokens, p->bucket);
    }
    p->tokens = MIN(p->tokens - spent, p->bucket);
    p->last_sent = sent_bytes;
    p->told_ns = 0;

    if (!p->rate) {
        p->tokens = 0;
        p->saving = false;
        return 0;
    }

    p->saving &= p->tokens < p->bucket;
    wait = ((p->saving ? p->bucket : 0) - p->tokens) / p->fill_rate * NS_PER_S;
    if (!p->saving && p->tokens >= 0) {
        return 0;
    }
    p->told_ns = wait >= MAX_WAIT_NS ? MAX_WAIT_NS : MAX((int64_t)wait, 1);
    return p->told_ns;
}

double tlm_pacer_save_up(TlmPacer *p)
{
    p->saving = p->rate;
    return p->rate ? p->bucket : 0;
}

int64_t tlm_pacer_fill_ns(const TlmPacer *p)
{
    return p->rate ? p->bucket / p->fill_rate * NS_PER_S : 0;
}

unsigned tlm_pacer_batch_pages(const TlmPacer *p, size_t page_size,
                               unsigned max_pages)
{
    double bytes, pages;

    max_pages = MAX(max_pages, 1);
    if (!p->rate || !page_size) {
        return max_pages;
    }
    bytes = p->in_flight / p->channels / TLM_PACER_BATCHES_IN_FLIGHT;
    pages = (bytes - PACKET_HEADER) / page_size;
    if (pages >= max_pages) {
        return max_pages;
    }
    return MAX(pages, 1);
}
