/*
 * TLM: one migration, as the files around the engine share it
 *
 * tlm.c makes it and hands it on.  There is one at a time.  Threads: the
 * coordinator, which is QEMU's migration thread; the engine's two workers;
 * and the main loop, under the BQL: QMP, HMP, timers.
 *
 * Lock order: BQL -> RAMState.bitmap_mutex -> TlmMigration.lock and the
 * engine's -> the locks of throttle.c and placement.c.  No thread holds one
 * of them while it writes to a socket (README.md, rules 6 and 7).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_TLM_INTERNAL_H
#define QEMU_MIGRATION_TLM_INTERNAL_H

#include "qemu/thread.h"
#include "qapi/qapi-types-migration-tlm.h"
#include "engine/engine.h"
#include "guest-ram.h"
#include "multifd-sink.h"
#include "planner/planner.h"

/* Moments in the life of a migration, in their order */
typedef enum TlmMark {
    TLM_MARK_START,             /* migrate was called */
    TLM_MARK_LIVE,              /* the live stage begins */
    TLM_MARK_STOPPING,          /* the live stage has ended */
    TLM_MARK_STOPPED,           /* the guest is stopped */
    TLM_MARK_SYNCED,            /* the dirty log has been read */
    TLM_MARK_RAM,               /* RAM has been sent */
    TLM_MARK_SWITCHOVER,        /* the wait for the manager is over */
    TLM_MARK_DEVICE,            /* the device state has been sent */
    TLM_MARK_DISKS,             /* of a checkpoint: they go on in overlays */
    TLM_MARK_RESUMED,           /* of a checkpoint: the guest goes on */
    TLM_MARK_POSTCOPY,          /* post-copy: the guest is handed over */
    TLM_MARK_TAKEN_OVER,        /* ... and the destination has it */
    TLM_MARK_END,
    TLM_MARKS
} TlmMark;

typedef struct TlmMigration {
    /* Written under the BQL by setup and cleanup */
    bool running;
    bool no_memory;             /* for the bitmaps */
    bool ram_loaded;            /* from a snapshot, meanwhile */
    TlmGuestRam ram;
    TlmMultifdSink sink;
    TlmEngine *engine;          /* stays until the next one, to be looked at */
    TlmPlanner *planner;

    /* Coordinator */
    bool switchover_due;
    bool postcopy_due;
    unsigned bound_doubts;      /* epochs in a row that think differently */
    uint64_t stopped_pages;     /* sent when the guest was stopped */
    uint64_t begin_zero_pages;  /* when the epoch began */
    int64_t begin_paused_ns;
    MigrationTlmCheckpointMethod method;    /* of the pause of one */
    uint64_t copied_bytes;
    uint64_t copy_rate;         /* bytes/s; 0: not known */
    uint64_t faults;            /* writes of the guest that had to wait */
    bool disks_asked;           /* the checkpoint has disks */
    bool disks_switched;        /* they are on their overlays */

    /* Protects what follows; never held for long */
    QemuMutex lock;
    MigrationTlmStage stage;
    bool switchover_requested;
    bool bound_lost;            /* said to be out of reach */
    uint64_t postcopy_bytes;    /* owed when post-copy began */
    uint64_t postcopy_sent;     /* on the wire then */
    bool valid;                 /* there is something to show */
    TlmPlanDecision plan;
    int64_t plan_ns;            /* when that was decided */
    TlmLedgerCounts shown_counts;
    int64_t shown_sync_ns;
    double shown_speed;
    double shown_progress;      /* %, never falls */
    char note[200];             /* of a checkpoint: why nothing is copied */
    /* QEMU_CLOCK_REALTIME; 0: not yet */
    int64_t mark_ns[TLM_MARKS];
} TlmMigration;

static inline uint64_t tlm_bytes(const TlmMigration *m, uint64_t pages)
{
    return pages << m->ram.page_bits;
}

/* tlm.c: as tlm_running(), but in post-copy as well */
bool tlm_under_way(void);
/* stage.c */
void tlm_mark(TlmMigration *m, TlmMark mark);
void tlm_set_stage(TlmMigration *m, MigrationTlmStage stage);
/* It cannot go on: the reason is the migration's error, if it is the first */
void G_GNUC_PRINTF(2, 3) tlm_fail(MigrationState *s, const char *fmt, ...);
/*
 * Reads the dirty log.  Coordinator; the BQL may be held or not.  0 or a
 * negative errno, with the reason told.
 */
int tlm_sync_log(TlmMigration *m);
/* sample.c; coordinator, no locks */
void tlm_sample_begin(TlmMigration *m);
void tlm_ask_planner(TlmMigration *m, TlmPlanDecision *decision);
/*
 * The same, in the main loop, when the bound has passed and the event has
 * not been sent yet.
 */
void tlm_tell_bound_passed(TlmMigration *m, uint64_t bound_ms,
                           int64_t elapsed_ms);
/* info.c; BQL held.  NULL: there is nothing to show. */
MigrationTlmInfo *tlm_info(TlmMigration *m);

/* check.c */
bool tlm_check(const MigrationAddress *addr, Error **errp);
/* connect.c; BQL held */
void tlm_connect_begin(void);
void tlm_connect_end(void);
void tlm_connect_cancel(void);
bool tlm_connect_pending(void);

#endif
