/*
 * TLM engine: what its files share
 *
 * The coordinator begins and ends epochs.  The workers mtx and dtx run only
 * inside an epoch.  Other threads ask for counters, and cancel.
 *
 * Lock order: TlmRamOps.lock -> TlmEngine.lock.  No thread holds either while
 * it sends a batch (../README.md, rules 6 and 7).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_ENGINE_INT_H
#define TLM_ENGINE_INT_H

#include "qemu/stats64.h"
#include "qemu/thread.h"
#include "burst.h"
#include "engine.h"
#include "ledger.h"
#include "pacer.h"

/* A position in the walk over all blocks; behind the last: end of RAM */
typedef struct TlmCursor {
    unsigned block;
    unsigned long page;
} TlmCursor;

/*
 * Tries to fill @batch with at most @max pages: true if it did.
 * ram lock held.
 */
typedef bool (*TlmPick)(TlmEngine *e, TlmBatch *batch, unsigned max);

typedef struct TlmWorker {
    TlmEngine *engine;
    TlmGroup group;
    const TlmPick *pick;        /* tried in order; ends with NULL */
    QemuThread thread;
    uint64_t epoch;             /* the last one it worked in */
    unsigned long *page;
} TlmWorker;

struct TlmEngine {
    TlmEngineConfig c;
    bool started;

    /*
     * The coordinator writes this between epochs; workers read it inside an
     * epoch.  A pick function writes under the ram lock.
     */
    GArray *blocks;             /* TlmLedgerBlock */
    uint64_t total_pages;
    TlmCursor walk;             /* mtx's pass; only moves forward */
    TlmCursor sweep;            /* dtx's, or the rest's, in this epoch */
    bool rest;                  /* all that is owed, nothing else */
    bool uncapped;              /* the guest stands still */
    TlmEpoch now;               /* what is to be done in this epoch */
    TlmLedgerCounts counts;     /* at the last sync */
    int64_t sync_ns;            /* cost of it */
    int64_t aged_ns;            /* when dirty pages last aged */
    int64_t aged_before_ns;     /* and the time before */
    bool timed_out;
    int64_t first_ns;           /* when the first epoch began; 0: not yet */
    int64_t begin_ns, busy_ns;
    uint64_t begin_bytes, begin_pages;
    int64_t begin_held_ns;
    bool held_back;             /* by the cap, in the epoch before this one */
    TlmBurst burst;             /* in this epoch */
    bool burst_on;
    int64_t burst_ns;           /* when the last one was begun */
    TlmWorker worker[TLM_WORKERS];

    /* For tlm_engine_counters() as well */
    Stat64 passed_pages;
    Stat64 mtx_pages, dtx_pages, rest_pages;
    Stat64 forgotten_pages;     /* taken off the ledger unsent, and still */
    Stat64 owed_pages;          /* dirty or unsent; ram lock to write */

    /* Protects what follows; never held for long */
    QemuMutex lock;
    QemuCond wake;              /* workers: an epoch begins or is to end */
    QemuCond done;              /* coordinator: look again */
    uint64_t epoch;
    unsigned busy;              /* workers inside the epoch */
    bool over;                  /* workers: finish the epoch */
    bool quit;
    bool failed;                /* a worker could not send */
    bool cancelled;
    bool interrupt;             /* somebody wants the coordinator */
    TlmPacer pacer;
    unsigned batch_pages;
};

static inline TlmLedgerBlock *tlm_engine_block(TlmEngine *e, unsigned i)
{
    return &g_array_index(e->blocks, TlmLedgerBlock, i);
}

/* owed.c; ram lock held: counts pages that were taken off the ledger */
void tlm_engine_owe_less(TlmEngine *e, unsigned long pages);
/* worker.c */
void tlm_workers_start(TlmEngine *e);
void tlm_workers_stop(TlmEngine *e);
/* pick.c: see TlmWorker.pick */
bool tlm_pick_walk(TlmEngine *e, TlmBatch *batch, unsigned max);
bool tlm_pick_dirty(TlmEngine *e, TlmBatch *batch, unsigned max);
bool tlm_pick_rest(TlmEngine *e, TlmBatch *batch, unsigned max);

#endif
