/*
 * Lanes to a destination, with delays, errors, and a peer that may die
 *
 * Each lane has a sender, which reads the pages some time after it was
 * given them, and a receiver, which writes them some time later.  Nothing
 * orders two lanes but a flush.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_ENGINE_FAKE_SINK_H
#define TEST_ENGINE_FAKE_SINK_H

#include "fake-ram.h"

typedef enum FakeFault {
    FAULT_NOTHING,
    FAULT_ERROR,                /* a lane breaks */
    FAULT_DEAD_PEER,            /* a lane takes nothing any more */
    FAULTS
} FakeFault;

typedef struct FakeLane FakeLane;

typedef struct FakeSink {
    const FakeRam *ram;
    unsigned nr_lanes;
    FakeLane *lane;
    uint64_t rate;              /* the cap, bytes/s; 0: none */
    unsigned delay_us;
    FakeFault fault;
    int fault_in;               /* batches */

    /* The destination */
    uint64_t **mem;             /* of each block */
    unsigned **flight;          /* of each page: the flush before it went */
    int twice;                  /* pages in flight twice; atomic */

    QemuMutex lock;
    QemuCond changed;
    unsigned flushes;
    unsigned arrived;           /* receivers at the flush that is next */
    unsigned passed;            /* flushes that all receivers have passed */
    bool broken, cancelled, end;
    uint64_t sent, acked;       /* atomic */
} FakeSink;

extern const TlmSinkOps fake_sink_ops;

FakeSink *fake_sink_new(GRand *rand, FakeRam *ram, FakeFault fault);
/* Waits until all that was flushed has arrived, and joins all threads */
void fake_sink_end(FakeSink *sink);
/* Pages that differ at the destination */
unsigned fake_sink_differing(const FakeSink *sink);
void fake_sink_free(FakeSink *sink);

#endif
