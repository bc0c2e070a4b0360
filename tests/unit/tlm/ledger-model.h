/*
 * The ledger as it should be, slow and simple: a struct for each page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_LEDGER_MODEL_H
#define TEST_LEDGER_MODEL_H

#include "engine/ledger.h"

#define WORD_BITS (sizeof(unsigned long) * 8)
#define MAX_AGE 3
#define SETTLED_AGE 2

typedef struct Page {
    bool unsent;                /* never taken, never dirty */
    bool dirty;
    unsigned age;               /* of a dirty page */
    bool forgotten;             /* owed no more, and not sent */
    bool written;               /* the dirty log has it */
    bool taken;                 /* since the last sync */
} Page;

typedef struct Model {
    GRand *rand;
    TlmLedgerBlock b;
    unsigned long *dirty;       /* what QEMU would own: RAMBlock.bmap */
    unsigned long words;
    unsigned long pages, chunk_pages;
    Page *page;
    bool *armed;
    unsigned long walk;         /* of TLM_TAKE_CLEAN; never goes back */
    /* Pages are forgotten in the middle of the next sync */
    enum { HINT_NONE, HINT_EARLY, HINT_LATE } hint;
    unsigned long hint_start, hint_pages;
} Model;

static inline bool test_bit(const unsigned long *map, unsigned long nr)
{
    return map[nr / WORD_BITS] >> (nr % WORD_BITS) & 1;
}

static inline void set_bit(unsigned long *map, unsigned long nr)
{
    map[nr / WORD_BITS] |= 1UL << (nr % WORD_BITS);
}

unsigned long random_below(Model *m, unsigned long end);
void model_init(Model *m, guint32 seed, unsigned long pages,
                unsigned long chunk_pages);
void model_start(Model *m);
void model_destroy(Model *m);
void model_new(Model *m, guint32 seed, unsigned long pages,
               unsigned long chunk_pages);
bool model_armed(const Model *m, unsigned long page);
void model_arm(Model *m, unsigned long chunk);
void model_arm_all(Model *m);
void model_write(Model *m, unsigned long page);
TlmLedgerCounts model_sync(Model *m, bool age);
unsigned model_take_until(Model *m, TlmTake what,
                          unsigned long *cursor, unsigned long end,
                          unsigned max);
unsigned model_take(Model *m, TlmTake what, unsigned long *cursor,
                    unsigned max);
unsigned long model_forget(Model *m, unsigned long start,
                           unsigned long npages);
void model_compare(Model *m);
void model_finish(Model *m);

#endif
