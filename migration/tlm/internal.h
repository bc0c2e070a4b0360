/*
 * TLM: what the files of migration/tlm/ share
 *
 * Three kinds of threads meet here:
 *
 *   coordinator  QEMU's migration thread: syncs the dirty log, partitions,
 *                asks the planner, starts and ends epochs, syncs multifd
 *   workers      mtx and dtx: take pages from the ledger and queue them;
 *                they run only inside an epoch
 *   main         QMP and HMP, under the BQL: info, cancel, parameters
 *
 * Lock order: BQL -> RAMState.bitmap_mutex -> TlmState.lock -> the locks of
 * throttle.c and placement.c.  None of them is held while a socket is
 * written to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_TLM_INTERNAL_H
#define QEMU_MIGRATION_TLM_INTERNAL_H

#include "qemu/stats64.h"
#include "qemu/thread.h"
#include "exec/ramblock.h"
#include "migration/multifd.h"
#include "migration/threadinfo.h"
#include "engine/burst.h"
#include "engine/ledger.h"
#include "overcommit/overcommit.h"
#include "engine/pacer.h"
#include "planner/planner.h"
#include "throttle.h"
#include "tlm.h"

typedef struct TlmBlock {
    RAMBlock *rb;
    TlmLedgerBlock ledger;
} TlmBlock;

/* A position in the walk over all blocks; behind the last: end of RAM */
typedef struct TlmCursor {
    unsigned block;
    unsigned long page;
} TlmCursor;

/* Pages of one RAMBlock that are queued together, as one multifd packet */
typedef struct TlmBatch {
    RAMBlock *rb;
    unsigned num;
    unsigned long *page;
} TlmBatch;

/*
 * Tries to fill @batch with at most @max pages: true if it did.
 * bitmap_mutex held.
 */
typedef bool (*TlmPick)(TlmBatch *batch, unsigned max);

typedef struct TlmWorker {
    const char *name;
    unsigned group;             /* of multifd channels */
    const TlmPick *pick;        /* tried in order; ends with NULL */
    QemuThread thread;
    uint64_t epoch;             /* the last one it worked in */
    MultiFDSendData *data;      /* empty, between two batches */
    unsigned long *page;
} TlmWorker;

enum { TLM_MTX, TLM_DTX, TLM_WORKERS };

/* Moments in the life of a migration, in their order */
enum {
    TLM_MARK_START,             /* migrate was called */
    TLM_MARK_LIVE,              /* the live stage begins */
    TLM_MARK_STOPPING,          /* the live stage has ended */
    TLM_MARK_STOPPED,           /* the guest is stopped */
    TLM_MARK_SYNCED,            /* the dirty log has been read */
    TLM_MARK_RAM,               /* RAM has been sent */
    TLM_MARK_SWITCHOVER,        /* nobody has to be waited for any more */
    TLM_MARK_DEVICE,            /* the device state has been sent */
    TLM_MARK_END,
    TLM_MARKS
};

typedef struct TlmState {
    /* Written under the BQL by setup and cleanup */
    bool running;
    /* Written under the BQL when a migration starts */
    bool left_out;              /* it cannot go by TLM, and need not */

    /*
     * Coordinator; workers read it inside an epoch only, when it does not
     * change.  What a pick function writes is under bitmap_mutex.
     */
    TlmBlock *blocks;
    unsigned nr_blocks;
    bool no_memory;             /* for the bitmaps: there are no blocks */
    unsigned page_bits;
    uint64_t total_pages;
    TlmCursor walk;             /* mtx's pass; only moves forward */
    uint64_t walk_end;          /* pages passed when this epoch's walk ends */
    TlmCursor sweep;            /* dtx's, or stage 3's, in this epoch */
    bool dtx_on;
    bool send_hot;
    MigrationTlmStage stage;    /* lock held to write, or to show */
    TlmLedgerCounts counts;     /* at the last sync */
    int64_t sync_ns;            /* cost of it */
    int64_t aged_ns;            /* when dirty pages last aged */
    int64_t aged_before_ns;     /* and the time before */
    int64_t epoch_begin_ns, epoch_busy_ns;
    bool epoch_timed_out;       /* the workers had work to the end */
    uint64_t epoch_begin_bytes, epoch_begin_pages, epoch_begin_zero_pages;
    int64_t epoch_begin_paused_ns, epoch_begin_held_ns;
    TlmBurst burst;             /* in this epoch */
    bool burst_on;
    int64_t burst_ns;           /* when the last one was begun */
    bool switchover_due;
    unsigned bound_doubts;      /* epochs in a row that think differently */
    uint64_t stopped_pages;     /* sent when the guest was stopped */
    TlmPlanner *planner;
    TlmWorker worker[TLM_WORKERS];

    /* For query-migrate as well */
    Stat64 passed_pages;
    Stat64 mtx_pages, dtx_pages, stop_pages;
    Stat64 forgotten_pages;     /* taken off the ledger unsent, and still */
    Stat64 owed_pages;          /* dirty or unsent; bitmap_mutex to write */

    /* Protects what follows; never held for long */
    QemuMutex lock;
    QemuCond wake;              /* workers: an epoch begins or is to end */
    QemuCond done;              /* coordinator: a worker has finished */
    uint64_t epoch;
    unsigned busy;              /* workers inside the epoch */
    bool epoch_over;            /* workers: finish */
    bool quit;
    bool failed;                /* a worker could not send */
    bool cancelled;
    bool switchover_requested;
    bool switchover_noticed;    /* the planner has been asked about it */
    bool bound_lost;            /* said to be out of reach */
    TlmPacer pacer;
    unsigned batch_pages;
    bool valid;                 /* there is something to show */
    TlmPlanDecision plan;
    int64_t plan_ns;            /* when that was decided */
    TlmLedgerCounts shown_counts;
    int64_t shown_sync_ns;
    double shown_speed;
    double shown_progress;      /* %, never falls */
    /* QEMU_CLOCK_REALTIME; 0: not yet */
    int64_t mark_ns[TLM_MARKS];
} TlmState;

extern TlmState tlm;

/* tlm.c */
void tlm_mark(int mark);
void tlm_owe_less(unsigned long pages);
/* sample.c; coordinator, no locks: asks the planner */
void tlm_ask_planner(TlmPlanDecision *decision);
/*
 * The same; main loop: the bound has passed, and nobody has said so yet.
 */
void tlm_tell_bound_passed(uint64_t bound_ms, int64_t elapsed_ms);
uint64_t tlm_pages_sent(void);
/* epoch.c; coordinator */
bool tlm_layout_unchanged(void);
int tlm_epoch_sync(void);
void tlm_epoch_arm(void);
int tlm_epoch_run(int64_t ns, bool linger);
/*
 * populated-ram.c; coordinator, outside of an epoch, no locks: takes pages
 * of a chunk that has just been armed for the first time off the ledger if
 * they were never populated.  Returns how many; all of them were clean.
 */
unsigned long tlm_skip_unpopulated(TlmBlock *b, unsigned long start,
                                   unsigned long npages);
/* drain.c */
uint64_t tlm_queued_bytes(void);
uint64_t tlm_acked_bytes(void);
void tlm_drain(void);
/* worker.c */
void tlm_workers_start(void);
void tlm_workers_stop(void);
/* mtx.c, dtx.c: see TlmWorker.pick */
bool tlm_pick_walk(TlmBatch *batch, unsigned max);
bool tlm_pick_dirty(TlmBatch *batch, unsigned max);
bool tlm_pick_rest(TlmBatch *batch, unsigned max);

/* placement.c */
TlmOcSchedule *tlm_placement_schedule(
    const MigrationTlmOvercommitStepList *list, Error **errp);
bool tlm_placement_start(Error **errp);
double tlm_placement_step(double progress);
double tlm_placement_next(double progress);
void tlm_placement_end(void);
double tlm_placement_share(void);
double tlm_placement_lost_ns(void);
void tlm_placement_fill_info(MigrationTlmInfo *t);
/* connect.c; BQL held */
void tlm_connect_begin(void);
void tlm_connect_end(void);
void tlm_connect_cancel(void);
bool tlm_connect_pending(void);
/* watchdog.c */
void tlm_watchdog_start(void);
void tlm_watchdog_commit(void);
void tlm_watchdog_stop(void);
void tlm_sending_begin(void);
void tlm_sending_end(void);

#endif
