/*
 * TLM engine: sends all of a guest's RAM while the guest writes to it
 *
 * The engine has the ledger, the two threads that take pages from it, and
 * the epochs in which they run.  It decides which page goes when, and knows
 * nothing of QEMU.  Two sets of operations tell it what RAM and the dirty log
 * are, and where the pages go.  The caller, with the planner's help, decides
 * how long epochs are and when the guest is stopped.
 *
 * The "coordinator" is the thread that calls the functions marked so.  It may
 * be another thread in every epoch, but there is one at a time.  A round is:
 *
 *     tlm_engine_sync()          read the dirty log into the ledger
 *     tlm_engine_arm()           make the log report the next writes
 *     tlm_engine_begin()
 *     tlm_engine_run()           the workers send
 *     tlm_engine_flush()         later pages cannot overtake the sent ones
 *
 * After the guest was stopped the coordinator calls tlm_engine_take_rest() and
 * makes one more round without begin.  ../README.md has the rules by which
 * this is correct.
 *
 * The idea of a walk with dirty pages sent beside it is from Chanchio's
 * thread-based live migration.  Operations are chosen when the object is made,
 * as in CRIU's struct page_xfer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_ENGINE_H
#define TLM_ENGINE_H

#include "ledger.h"
#include "../planner/planner.h"

typedef struct TlmEngine TlmEngine;

/* Each worker sends by its own group of lanes */
typedef enum { TLM_MTX, TLM_DTX, TLM_WORKERS } TlmGroup;

/* Of the workers' threads */
extern const char *const tlm_group_names[TLM_WORKERS];

/* Pages of one block that go together */
typedef struct TlmBatch {
    unsigned block;             /* as counted by tlm_engine_add_block() */
    unsigned num;
    unsigned long *page;        /* in ascending order */
} TlmBatch;

/* What guest RAM is.  @ram: as given to tlm_engine_new(). */
typedef struct TlmRamOps {
    /*
     * Held around all reads and writes of a block's dirty bitmap or of the
     * ledger, for microseconds.  Any thread.
     */
    void (*lock)(void *ram);
    void (*unlock)(void *ram);
    /*
     * Sets, in the dirty bitmaps of all blocks, the pages that were written
     * to.  It may set others as well, in chunks that were never cleared.
     * Coordinator, no locks.
     */
    void (*sync)(void *ram);
    /*
     * Clears the log of these pages: it reports the next write to them, and
     * the last sync has reported all before.  Coordinator, lock held.
     */
    void (*clear_log)(void *ram, unsigned block, unsigned long first,
                      unsigned long num);
    /*
     * These pages have been armed for the first time, and none of them has
     * been sent yet.  May call tlm_engine_forget_clean().  May be NULL.
     * Coordinator, no locks.
     */
    void (*armed)(void *ram, unsigned block, unsigned long first,
                  unsigned long num);
    /* So many pages are owed now.  Any thread, lock held. */
    void (*owed)(void *ram, uint64_t pages);
    /* A worker calls them first and last.  May be NULL. */
    void *(*thread_begin)(void *ram, const char *name);
    void (*thread_end)(void *ram, void *thread);
} TlmRamOps;

/* Where the pages go: by lanes, each of which keeps the order */
typedef struct TlmSinkOps {
    /*
     * Sends @batch by a lane of @group.  The lane reads the pages at any time
     * before the next flush has returned.  Waits until a lane is free.
     * False: the lane is broken.  Worker of that group, no locks.
     */
    bool (*send)(void *sink, TlmGroup group, const TlmBatch *batch);
    /* Waits until each lane has taken its batch; 0 or a negative errno. */
    int (*wait_idle)(void *sink);
    /*
     * Nothing that is sent later arrives before what was sent until now.
     * 0 or a negative errno.  For this and wait_idle: coordinator, no locks.
     */
    int (*flush)(void *sink);
    /* Ends all waits in these functions, and those to come.  Any thread. */
    void (*cancel)(void *sink);
    /* Bytes that were sent; any thread */
    uint64_t (*sent)(void *sink);
    /* Sent bytes that have not arrived; 0 if that is not known */
    uint64_t (*queued)(void *sink);
    /* Bytes that have arrived, ever; 0 if that is not known */
    uint64_t (*acked)(void *sink);
    /* All lanes together may send so many bytes/s; 0: no limit */
    uint64_t (*max_rate)(void *sink);
    unsigned (*lanes)(void *sink);
} TlmSinkOps;

typedef struct TlmEngineConfig {
    const TlmRamOps *ram_ops;
    void *ram;
    const TlmSinkOps *sink_ops;
    void *sink;
    unsigned page_bits;         /* the size of a page is 1 << page_bits */
    unsigned batch_max;         /* pages in a batch */
} TlmEngineConfig;

/* In pages; for those who look on */
typedef struct TlmEngineCounters {
    uint64_t total;
    uint64_t owed;              /* dirty or never sent */
    uint64_t passed;            /* mtx has gone by */
    uint64_t mtx, dtx, rest;    /* sent: in the pass, as dirty, at the end */
    uint64_t forgotten;         /* never sent, as nobody needs them */
    uint64_t epochs;            /* (a number) */
} TlmEngineCounters;

/* What one epoch is to do */
typedef struct TlmEpoch {
    int64_t ns;                 /* its length at most */
    bool linger;                /* not shorter either, for lack of work */
    bool dtx;                   /* send settled dirty pages, */
    bool hot;                   /* and hot ones */
    uint64_t walk_end;          /* mtx halts when it has passed so many */
} TlmEpoch;

/* Never fails.  No threads yet, no blocks. */
TlmEngine *tlm_engine_new(const TlmEngineConfig *config);
/*
 * Before the start, ram lock held.  All pages that are set in @dirty are owed.
 * @dirty belongs to the ledger until tlm_engine_stop().  Returns false if
 * there is not enough memory; then the engine cannot be used.
 */
bool tlm_engine_add_block(TlmEngine *e, unsigned long *dirty,
                          unsigned long pages, unsigned long chunk_pages);
/* Starts the workers */
void tlm_engine_start(TlmEngine *e);
/*
 * Joins the workers and lets go of all blocks; no epoch is running.
 * tlm_engine_counters() and tlm_engine_epochs() go on giving the last values.
 */
void tlm_engine_stop(TlmEngine *e);
void tlm_engine_free(TlmEngine *e);

/*
 * Coordinator, no locks.  False with @errp set: the ledger contradicts
 * itself, and a page may have been in flight twice.
 */
bool tlm_engine_sync(TlmEngine *e, GError **errp);
void tlm_engine_arm(TlmEngine *e);
/* Starts the counts of the next sample */
void tlm_engine_begin(TlmEngine *e);
/*
 * Returns when both workers are idle: 0, -EIO if the sink is broken, or
 * -ECANCELED.
 */
int tlm_engine_run(TlmEngine *e, const TlmEpoch *epoch);
/* True if the workers had work until the last epoch's time was over */
bool tlm_engine_timed_out(const TlmEngine *e);
int tlm_engine_flush(TlmEngine *e);
/* The guest is stopped: from now on send all owed pages, without a cap */
void tlm_engine_take_rest(TlmEngine *e);
/* ... and with the cap again, because the guest runs while copies of it go */
void tlm_engine_keep_cap(TlmEngine *e);
/* As tlm_ledger_next(), outside of an epoch; any thread */
unsigned long tlm_engine_next(TlmEngine *e, TlmTake what, unsigned block,
                              unsigned long *first, unsigned long end);
/*
 * Waits until the lanes, and the kernel's queues behind them, are empty, or
 * until these queues do not change any more.  0 or a negative errno.
 */
int tlm_engine_drain(TlmEngine *e);
/*
 * True if mtx has passed over all RAM.  Coordinator.
 */
bool tlm_engine_passed(const TlmEngine *e);
/* Fills in what the planner must know of the last epoch; leaves the rest */
void tlm_engine_sample(TlmEngine *e, int64_t now_ns, TlmPlanSample *sample);
/* The ledger at the last sync, in pages; and the cost of that sync */
TlmLedgerCounts tlm_engine_counts(const TlmEngine *e);
int64_t tlm_engine_sync_ns(const TlmEngine *e);

/* Ends the epoch soon, so that the coordinator comes.  Any thread, no locks. */
void tlm_engine_interrupt(TlmEngine *e);
/* Takes the interrupt back.  Coordinator, when it has come. */
void tlm_engine_heed(TlmEngine *e);
/* Any thread, no locks.  The epoch ends, and all later ones. */
void tlm_engine_cancel(TlmEngine *e);
bool tlm_engine_cancelled(TlmEngine *e);

/*
 * The guest does not use these pages: they are not owed any more, unless the
 * guest writes to them.  ram lock held.
 */
void tlm_engine_forget(TlmEngine *e, unsigned block, unsigned long first,
                       unsigned long num);
/*
 * The same for those of these pages that are not dirty, because they read as
 * zero.  Only from TlmRamOps.armed.  Returns their number.
 */
unsigned long tlm_engine_forget_clean(TlmEngine *e, unsigned block,
                                      unsigned long first,
                                      unsigned long num);
/* All pages are sent, @rest of them with the guest stopped */
void tlm_engine_completed(TlmEngine *e, uint64_t rest);

/*
 * Somebody else sends all that is owed, what was skipped included, and takes
 * it from the dirty bitmaps.  The guest is stopped and the log has been read
 * into them.  Coordinator, between two epochs; there is none afterwards.
 * Returns how many pages it is.
 */
uint64_t tlm_engine_hand_over(TlmEngine *e);

/* Of a block, until tlm_engine_stop() */
unsigned long tlm_engine_block_pages(const TlmEngine *e, unsigned block);

/* Any thread, no locks */
void tlm_engine_counters(TlmEngine *e, TlmEngineCounters *counters);
uint64_t tlm_engine_owed(TlmEngine *e);

#endif
