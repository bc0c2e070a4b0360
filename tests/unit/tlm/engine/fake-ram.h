/*
 * A guest's RAM, its vCPUs, and a dirty log as KVM keeps it
 *
 * A page is a number.  A vCPU that writes to a page which is protected
 * "faults": the log notes the page, the protection goes, and it tries again.
 * Between the two, the log may be read, and cleared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_ENGINE_FAKE_RAM_H
#define TEST_ENGINE_FAKE_RAM_H

#include "qemu/thread.h"
#include "engine/engine.h"

typedef enum FakeLog {
    FAKE_LOG_SIMPLE,            /* to read it is to clear it */
    FAKE_LOG_MANUAL,            /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
    FAKE_LOG_INITIALLY_SET,     /* the same, with KVM_DIRTY_LOG_INITIALLY_SET */
    FAKE_LOGS
} FakeLog;

/* Faults of the world around the engine, or in it, that must be found */
typedef enum FakeBreak {
    BREAK_NOTHING,
    BREAK_NO_FLUSH,             /* a flush lets pages overtake each other */
    BREAK_ARM_LATE,             /* the log is cleared after pages were read */
    BREAK_CLEAR_UNREAD,         /* ... of writes that nobody was told of */
    BREAK_UNSENT_LOST,          /* a bit of the ledger is lost */
    BREAK_TAKEN_BACK,           /* a page comes back in mid-epoch */
    BREAKS
} FakeBreak;

typedef struct FakeBlock {
    unsigned long pages;
    uint64_t *mem;              /* atomic: read without a lock */
    uint64_t *copy, *frozen;    /* of a checkpoint: of what is owed; all */
    bool *log, *writable;       /* under mmu_lock */
    bool *read;                 /* the log's last reader was told; ditto */
    unsigned long *dirty;       /* the ledger's */
} FakeBlock;

typedef struct FakeRam {
    FakeLog kind;
    FakeBreak broken;
    TlmEngine *engine;
    bool copied;                /* what is sent is read from copies */
    unsigned nr_blocks;
    FakeBlock *block;
    QemuMutex bitmap_mutex;
    QemuMutex mmu_lock;
    GArray *late;               /* BREAK_ARM_LATE: to be cleared */
    int threads;                /* workers that live; atomic */

    unsigned nr_vcpus;
    pthread_t *vcpu;
    int run;                    /* atomic */
    int vcpu_seed;
    double hot_share;           /* of RAM, that most writes go to */
    int pause_us;               /* between writes, at most; atomic */
} FakeRam;

extern const TlmRamOps fake_ram_ops;

/* Some pages have data, others were never populated */
FakeRam *fake_ram_new(GRand *rand, FakeBreak broken);
void fake_ram_free(FakeRam *ram);
/* After the dirty log was turned on: gives the blocks to @ram->engine */
void fake_ram_add_blocks(FakeRam *ram);
void fake_ram_start_vcpus(FakeRam *ram);
void fake_ram_stop_vcpus(FakeRam *ram);
uint64_t fake_ram_read(const FakeRam *ram, unsigned block, unsigned long page);
/* What the sink is to read, and what the destination must have at the end */
uint64_t fake_ram_read_sent(const FakeRam *ram, unsigned block,
                            unsigned long page);
uint64_t fake_ram_read_wanted(const FakeRam *ram, unsigned block,
                              unsigned long page);
/* The vCPUs are stopped: copies what is owed, and remembers all */
void fake_ram_freeze(FakeRam *ram);
/* BREAK_ARM_LATE: the log of what was read meanwhile is cleared now */
void fake_ram_clear_late(FakeRam *ram);

#endif
