/*
 * TLM ledger: which page is owed to the destination, and who sends it
 *
 * Each RAMBlock has three bits a page beside QEMU's own:
 *
 *   dirty    QEMU's RAMBlock.bmap, borrowed: the page was written to and
 *            must be sent.  Owned by dtx.
 *   unsent   of a page that is not dirty: never sent.  Owned by mtx.
 *            Of a dirty page: the low bit of its age.
 *   settled  of a dirty page: the high bit of its age.  Of a page that is
 *            neither dirty nor unsent: it was forgotten, not sent.
 *   carried  the dirty bits from before a sync, during the sync; else 0.
 *
 * The age of a dirty page, 0 to 3, counts the syncs with @age since the last
 * sync that found the page written to.  From 2 on the page is called settled,
 * before that hot.  The guest is likely to write to a hot page again soon, and
 * a hot page that is sent now would be sent twice.
 *
 * A page is mtx's while it is unsent and not dirty, dtx's while it is dirty.
 * The two sets are disjoint by their definition, so mtx and dtx may take pages
 * side by side.  No page is taken twice between two calls of
 * tlm_ledger_after_sync(): taking clears all bits of a page, and only a sync
 * sets any.
 *
 * A dirty bit is dropped only for a page that is unsent: a page that is owed
 * stays owed until it is taken.
 *
 * Locking: the caller serialises all functions of one block, in QEMU by
 * RAMState.bitmap_mutex.  Only init and destroy sleep or allocate.
 *
 * The idea "send clean pages in one pass, and dirty pages beside it" is from
 * Chanchio's thread-based live migration.  The bits are new.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_LEDGER_H
#define TLM_LEDGER_H

typedef struct TlmLedgerBlock {
    unsigned long *dirty;       /* borrowed */
    unsigned long *unsent;
    unsigned long *settled;
    unsigned long *carried;
    /*
     * One bit a chunk: the log reports writes from now on.  The log of a
     * chunk that is not armed says nothing about its pages: see "Arming" in
     * docs/devel/migration/tlm/index.rst.
     */
    unsigned long *armed;
    unsigned long pages;
    unsigned long chunk_pages;  /* a power of two, >= 64 */
} TlmLedgerBlock;

/* In pages; summed over all blocks by the caller */
typedef struct TlmLedgerCounts {
    uint64_t clean_unsent;      /* mtx's */
    uint64_t dirty;             /* dtx's */
    uint64_t hot;               /* part of dirty: not settled */
    uint64_t fresh;             /* found dirty by this sync */
    uint64_t revived;           /* part of fresh: was forgotten before */
} TlmLedgerCounts;

typedef enum {
    TLM_TAKE_CLEAN,             /* mtx: unsent and not dirty */
    TLM_TAKE_SETTLED,           /* dtx: dirty, not hot */
    TLM_TAKE_DIRTY,             /* dtx: dirty, hot or not */
    TLM_TAKE_ALL,               /* stop stage: dirty or unsent */
    TLM_TAKE_HOT,               /* dirty, and hot: to be looked for only */
} TlmTake;

/*
 * All pages that are set in @dirty become unsent; @dirty is cleared.  @pages
 * is the used length of the block.  False: there is not enough memory, and
 * nothing was changed.
 */
bool tlm_ledger_block_init(TlmLedgerBlock *b, unsigned long *dirty,
                           unsigned long pages, unsigned long chunk_pages);
void tlm_ledger_block_destroy(TlmLedgerBlock *b);

/*
 * The first run of pages of the kind @what at or after *@start and before
 * @end: returns its length, and where it begins in *@start.  0: there is none.
 * Takes nothing.  Several threads may look, while none changes anything.
 */
unsigned long tlm_ledger_next(const TlmLedgerBlock *b, TlmTake what,
                              unsigned long *start, unsigned long end);

/* How many pages are dirty or unsent: counted, not remembered */
uint64_t tlm_ledger_owed(const TlmLedgerBlock *b);

/*
 * Call these before and after a sync of the dirty log into @dirty.  With @age,
 * pages that were dirty before and are not found written to now age by one.
 * Adds to @counts.
 */
void tlm_ledger_before_sync(TlmLedgerBlock *b);
void tlm_ledger_after_sync(TlmLedgerBlock *b, bool age,
                           TlmLedgerCounts *counts);

/*
 * What was forgotten is owed again, as unsent.  Returns how many pages.  A
 * destination that runs the guest asks for a page that it has never got, and
 * waits for it.
 */
uint64_t tlm_ledger_revive(TlmLedgerBlock *b);
/* How many runs of owed pages there are */
uint64_t tlm_ledger_runs(const TlmLedgerBlock *b);
/*
 * Pages between two owed ones become owed, too, where there are @gap of them at
 * most: fewer runs, more pages.  Returns how many pages.
 */
uint64_t tlm_ledger_fill_gaps(TlmLedgerBlock *b, unsigned long gap);
/*
 * All that is owed becomes dirty, and nothing is unsent: whoever owns the
 * bitmap sends it.
 */
void tlm_ledger_give_back(TlmLedgerBlock *b);

unsigned long tlm_ledger_chunks(const TlmLedgerBlock *b);
bool tlm_ledger_chunk_armed(const TlmLedgerBlock *b, unsigned long chunk);
/* Does the chunk hold dirty pages, i.e. must its log be cleared? */
bool tlm_ledger_chunk_dirty(const TlmLedgerBlock *b, unsigned long chunk);
/* Call after the chunk's dirty log has been cleared */
void tlm_ledger_arm_chunk(TlmLedgerBlock *b, unsigned long chunk);

/*
 * Take up to @max pages of the kind @what at or after *@cursor and before
 * @end (b->pages at most), in ascending order, into @taken.  Moves *@cursor
 * behind the last page that was looked at, or to @end when there are no more.
 * TLM_TAKE_CLEAN stops in front of a chunk that is not armed and leaves
 * *@cursor there.  Returns the number of pages taken.
 */
unsigned tlm_ledger_take(TlmLedgerBlock *b, TlmTake what,
                         unsigned long *cursor, unsigned long end,
                         unsigned long *taken, unsigned max);

/*
 * The guest does not use these pages, or never has: they are not owed any
 * more, unless the guest writes to them later.  Returns how many of them were
 * owed.  During a sync, pages that were dirty before it stay owed.
 */
unsigned long tlm_ledger_forget(TlmLedgerBlock *b, unsigned long start,
                                unsigned long npages);
/* The same, but pages that are dirty stay owed */
unsigned long tlm_ledger_forget_clean(TlmLedgerBlock *b, unsigned long start,
                                      unsigned long npages);

#endif
