/*
 * TLM: the dry run's measurement
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_ESTIMATE_H
#define TLM_ESTIMATE_H

/* Rates in bytes/s; the window is the real time of the measurement */
typedef struct TlmEstimateResult {
    uint64_t window_ms;
    uint64_t total_bytes;
    uint64_t populated_bytes;
    uint64_t working_set_bytes;
    uint64_t dirty_rate;
    bool populated_known;
} TlmEstimateResult;

/* May a measurement start now?  BQL held. */
bool tlm_estimate_possible(Error **errp);
/*
 * Watches the guest for @window_ns.  Runs in a thread of its own, without
 * locks; takes the BQL for short stretches.  False with @errp set: a migration
 * or another user of the dirty log came between, or the layout of RAM changed.
 */
bool tlm_estimate_measure(int64_t window_ns, TlmEstimateResult *result,
                          Error **errp);

#endif
