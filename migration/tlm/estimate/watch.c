/*
 * TLM: the dry run's measurement
 *
 * Watches the dirty log for a short time.  The window is cut into rounds:
 *
 *   |<-- sub-window -->|                      |
 *   clear            count              count, clear
 *
 * The dirty rate is the number of pages in the sub-windows, over their time.
 * Sub-windows are short, so that a page written twice rarely counts once.  The
 * working set is the union of all rounds.  There is one clear a round, not one
 * a count, so a page costs the guest one write fault a round.  A migration
 * costs it more.
 *
 * Clearing the log of a large guest takes seconds.  The BQL is held for a short
 * stretch at a time.  So each piece of RAM has windows of its own, from one of
 * its clears to the next.
 *
 * DIRTY_MEMORY_MIGRATION's bits belong to migrations, and are cleared here.
 * This cannot lose a page:
 *   - No migration runs.  Each stretch checks that under the BQL, and holds
 *     the BQL from the check to its end.  A migration sets
 *     GLOBAL_DIRTY_MIGRATION under the BQL as well (ram_init_bitmaps()).
 *   - A migration that starts later begins with all ones in RAMBlock.bmap, so
 *     earlier writes do not need their bits.  An incremental checkpoint would
 *     need them, so the next checkpoint is a full one.
 *   - memory_region_reset_dirty() clears the bits.  It makes the next write
 *     set a bit again, and clears in KVM's log only what has been fetched from
 *     there.
 * Other users (VGA, TCG's code) have bits of their own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/ram.h"
#include "system/runstate.h"
#include "estimate.h"
#include "../pagemap.h"
#include "../qemu-compat.h"
#include "../tlm.h"
#include "../trace.h"

/* A round is a quarter of the window, and never longer than this */
#define ROUNDS_MIN 4
#define ROUND_MAX_NS (500 * SCALE_MS)
#define SUB_WINDOW_MAX_NS (50 * SCALE_MS)
/* A migration that starts is noticed within this time */
#define POLL_NS (20 * SCALE_MS)
/* Time of a stretch in which the dirty log is cleared with the BQL held */
#define CLEAR_BUDGET_NS (5 * SCALE_MS)
/* Time after it in which the BQL is free for others */
#define CLEAR_PAUSE_NS (1 * SCALE_MS)
/* Bits are cleared in pieces of this many pages, a multiple of a word */
#define PIECE_PAGES 16384UL
/* Number of pages in the sample that tells how much of RAM is not zero */
#define SAMPLES 16384
#define SAMPLES_AT_ONCE 64

typedef struct EstimateBlock {
    RAMBlock *rb;
    ram_addr_t used_length;
    unsigned long pages;
    unsigned long *seen;        /* pages written to in the window */
    int64_t *cleared_ns;        /* when each piece was, last */
} EstimateBlock;

/* One measurement; belongs to its thread */
typedef struct Measurement {
    EstimateBlock *blocks;
    unsigned nr_blocks;
    uint32_t ram_version;
    unsigned page_bits;
    bool logging;
    int64_t window_ns;          /* wanted, then real */
    uint64_t total_pages;
    uint64_t populated_pages;
    bool populated_known;
    double sub_rate;            /* pages per ns in the sub-windows, summed */
    unsigned sub_windows;
} Measurement;

/*
 * Is 'calc-dirty-rate' using the dirty log, or about to?  It shares
 * GLOBAL_DIRTY_DIRTY_RATE with this file, and insists on turning it off itself.
 */
static bool calc_dirty_rate_logs(void)
{
    g_autoptr(DirtyRateInfo) info =
        qmp_query_dirty_rate(false, TIME_UNIT_SECOND, &error_abort);

    return info->status == DIRTY_RATE_STATUS_MEASURING &&
           info->mode != DIRTY_RATE_MEASURE_MODE_PAGE_SAMPLING;
}

static bool migrating(void)
{
    return migration_is_running() ||
           (global_dirty_tracking & GLOBAL_DIRTY_MIGRATION);
}

/* May the dirty bits be read and cleared?  BQL held. */
static bool may_go_on(const Measurement *m, Error **errp)
{
    bool changed = ram_list.version != m->ram_version;

    if (migrating()) {
        error_setg(errp, "A migration has started during the measurement");
        return false;
    }
    for (unsigned i = 0; !changed && i < m->nr_blocks; i++) {
        changed = m->blocks[i].rb->used_length != m->blocks[i].used_length;
    }
    if (changed) {
        error_setg(errp, "The layout of RAM has changed during the "
                   "measurement");
        return false;
    }
    if (m->logging && !(global_dirty_tracking & GLOBAL_DIRTY_DIRTY_RATE)) {
        error_setg(errp, "'calc-dirty-rate' has ended the dirty log during "
                   "the measurement");
        return false;
    }
    return true;
}

static bool setup_blocks(Measurement *m, Error **errp)
{
    g_autoptr(GArray) blocks = g_array_new(false, true,
                                           sizeof(EstimateBlock));
    RAMBlock *rb;
    bool ok = true;

    BQL_LOCK_GUARD();
    RCU_READ_LOCK_GUARD();

    m->page_bits = qemu_target_page_bits();
    m->ram_version = ram_list.version;
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        EstimateBlock b = {
            .rb = rb,
            .used_length = rb->used_length,
            .pages = rb->used_length >> m->page_bits,
        };

        b.seen = bitmap_try_new(MAX(b.pages, 1));
        b.cleared_ns = g_new0(int64_t, DIV_ROUND_UP(b.pages, PIECE_PAGES));
        ok &= b.seen != NULL;
        m->total_pages += b.pages;
        g_array_append_val(blocks, b);
    }
    m->nr_blocks = blocks->len;
    m->blocks = (EstimateBlock *)g_array_free(g_steal_pointer(&blocks),
                                              false);
    if (!ok) {
        error_setg(errp, "Not enough memory for a bitmap of %" PRIu64
                   " pages", m->total_pages);
    }
    return ok;
}

static void free_blocks(Measurement *m)
{
    for (unsigned i = 0; i < m->nr_blocks; i++) {
        g_free(m->blocks[i].seen);
        g_free(m->blocks[i].cleared_ns);
    }
    g_free(m->blocks);
}

/*
 * How much of RAM is not zero
 */

/*
 * Does a page hold anything but zeros?  Must not populate the page, so a page
 * that is not there is not read.  If in doubt: yes.
 */
static bool page_has_data(const EstimateBlock *b, unsigned long page,
                          unsigned page_bits, const TlmPagemap *pagemap)
{
    uint64_t offset = (uint64_t)page << page_bits;
    const uint8_t *host = b->rb->host + offset;
    off_t data;

    if (b->rb->guest_memfd >= 0) {
        return true;
    }
    switch (tlm_pagemap_page(pagemap, host)) {
    case TLM_PAGEMAP_PRESENT:
        return !buffer_is_zero(host, 1 << page_bits);
    case TLM_PAGEMAP_ABSENT:
        break;
    case TLM_PAGEMAP_SWAPPED:
    case TLM_PAGEMAP_UNKNOWN:
        return true;
    }
    if (b->rb->fd < 0) {
        return false;
    }
    /* This process has not mapped it; but does the file have it? */
    offset += b->rb->fd_offset;
    data = lseek(b->rb->fd, offset, SEEK_DATA);
    return data < 0 ? errno != ENXIO
                    : (uint64_t)data < offset + (1 << page_bits);
}

/*
 * Cuts RAM into parts of the same length and looks at one random page of each.
 * Populated pages come in long runs, so the error is some parts, a few per
 * mille of RAM.
 */
static void sample_populated(Measurement *m)
{
    unsigned long stride = MAX(1, m->total_pages / SAMPLES);
    TlmPagemap pagemap;

    if (!tlm_pagemap_open(&pagemap, qemu_real_host_page_size())) {
        return;
    }
    m->populated_known = true;
    for (unsigned i = 0; i < m->nr_blocks; i++) {
        const EstimateBlock *b = &m->blocks[i];
        unsigned long start = 0;

        while (start < b->pages && m->populated_known) {
            /* A block that is still listed does not go away meanwhile */
            RCU_READ_LOCK_GUARD();

            if (qatomic_read(&ram_list.version) != m->ram_version) {
                m->populated_known = false;
            }
            for (unsigned n = 0; n < SAMPLES_AT_ONCE && start < b->pages &&
                 m->populated_known; n++) {
                unsigned long len = MIN(stride, b->pages - start);
                unsigned long page = start + g_random_double() * len;

                if (page_has_data(b, page, m->page_bits, &pagemap)) {
                    m->populated_pages += len;
                }
                start += len;
            }
        }
    }
    tlm_pagemap_close(&pagemap);
}

/*
 * The dirty log
 */

/*
 * Counts the dirty pages among the @num pages from @start on, and notes them in
 * @b->seen if @note.  @start is a multiple of BITS_PER_LONG.  RCU read lock
 * held.
 */
static unsigned long read_bits(EstimateBlock *b, unsigned page_bits,
                               unsigned long start, unsigned long num,
                               bool note)
{
    DirtyMemoryBlocks *blocks =
        qatomic_rcu_read(&ram_list.dirty_memory[DIRTY_MEMORY_MIGRATION]);
    ram_addr_t base = b->rb->offset >> page_bits;
    unsigned long count = 0;

    for (unsigned long i = 0; i < num; i += BITS_PER_LONG) {
        ram_addr_t page = base + start + i;
        unsigned long bits =
            qatomic_read(&blocks->blocks[page / DIRTY_MEMORY_BLOCK_SIZE]
                         [BIT_WORD(page % DIRTY_MEMORY_BLOCK_SIZE)]);

        if (bits && num - i < BITS_PER_LONG) {
            bits &= BITMAP_LAST_WORD_MASK(num - i);
        }
        if (bits) {
            count += ctpopl(bits);
            if (note) {
                b->seen[BIT_WORD(start + i)] |= bits;
            }
        }
    }
    return count;
}

/*
 * Clears the dirty pages of a piece, and with @note notes them.  TCG's vCPUs
 * may write in the few microseconds between the two.  Such a page is missed
 * unless it is written to again.  BQL held.
 */
static void take_piece(const Measurement *m, EstimateBlock *b,
                       unsigned long start, bool note)
{
    unsigned long num = MIN(PIECE_PAGES, b->pages - start);

    if (read_bits(b, m->page_bits, start, num, note)) {
        memory_region_reset_dirty(b->rb->mr,
                                  (hwaddr)start << m->page_bits,
                                  (hwaddr)num << m->page_bits,
                                  DIRTY_MEMORY_MIGRATION);
    }
}

/*
 * Clears pieces from page *@page of block *@block on, as long as the budget
 * lasts, and moves *@page and *@block on.  With @note, notes the dirty pages.
 * False if clearing is not allowed any more.
 */
static bool clear_stretch(Measurement *m, bool note, unsigned *block,
                          unsigned long *page, Error **errp)
{
    int64_t begin_ns, last_ns, now_ns;
    unsigned pieces = 0;

    BQL_LOCK_GUARD();
    RCU_READ_LOCK_GUARD();

    if (!may_go_on(m, errp)) {
        return false;
    }
    last_ns = now_ns = begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    while (*block < m->nr_blocks && now_ns - begin_ns < CLEAR_BUDGET_NS) {
        EstimateBlock *b = &m->blocks[*block];

        if (*page >= b->pages) {
            (*block)++;
            *page = 0;
            continue;
        }
        last_ns = now_ns;
        take_piece(m, b, *page, note);
        now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        b->cleared_ns[*page / PIECE_PAGES] = now_ns;
        *page += PIECE_PAGES;
        pieces++;
    }
    trace_tlm_estimate_clear(pieces, (now_ns - begin_ns) / SCALE_US,
                             (now_ns - last_ns) / SCALE_US);
    return true;
}

/*
 * Clears all of the log.  This is the slow part in a large guest: KVM may have
 * every page marked dirty at first, and write-protects each page that is
 * cleared.  The BQL is not fair: a thread that takes it back at once gets it,
 * and main loop and vCPUs starve.  So this leaves it alone between stretches.
 */
static bool clear_all(Measurement *m, bool note, Error **errp)
{
    unsigned block = 0;
    unsigned long page = 0;

    while (clear_stretch(m, note, &block, &page, errp)) {
        if (block == m->nr_blocks) {
            return true;
        }
        g_usleep(CLEAR_PAUSE_NS / SCALE_US);
    }
    return false;
}

/* False if that may not be done */
static bool log_sync(Measurement *m, int64_t *now_ns, Error **errp)
{
    BQL_LOCK_GUARD();

    if (!may_go_on(m, errp)) {
        return false;
    }
    memory_global_dirty_log_sync(false);
    *now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    return true;
}

/*
 * Adds the rate at which pages of each piece have become dirty since the piece
 * was cleared.  Reading the bits needs no BQL.  False if it is not allowed any
 * more.
 */
static bool count_dirty(Measurement *m, Error **errp)
{
    int64_t now_ns;

    if (!log_sync(m, &now_ns, errp)) {
        return false;
    }
    for (unsigned i = 0; i < m->nr_blocks; i++) {
        EstimateBlock *b = &m->blocks[i];

        for (unsigned long p = 0; p < b->pages; p += PIECE_PAGES) {
            /* A block that is still listed does not go away meanwhile */
            RCU_READ_LOCK_GUARD();

            if (qatomic_read(&ram_list.version) != m->ram_version) {
                error_setg(errp, "The layout of RAM has changed during the "
                           "measurement");
                return false;
            }
            m->sub_rate += (double)read_bits(b, m->page_bits, p,
                                             MIN(PIECE_PAGES, b->pages - p),
                                             false) /
                           MAX(1, now_ns - b->cleared_ns[p / PIECE_PAGES]);
        }
    }
    m->sub_windows++;
    return true;
}

static bool log_start(Measurement *m, Error **errp)
{
    BQL_LOCK_GUARD();

    if (!may_go_on(m, errp)) {
        return false;
    }
    if (!runstate_is_running()) {
        return true;            /* it writes nothing */
    }
    if ((global_dirty_tracking & GLOBAL_DIRTY_DIRTY_RATE) ||
        calc_dirty_rate_logs()) {
        error_setg(errp, "'calc-dirty-rate' is measuring");
        return false;
    }
    if (!memory_global_dirty_log_start(GLOBAL_DIRTY_DIRTY_RATE, errp)) {
        return false;
    }
    m->logging = true;
    tlm_chain_end("A dry run ('tlm-estimate') has used the dirty log");
    memory_global_dirty_log_sync(false);
    return true;
}

static void log_stop(Measurement *m)
{
    BQL_LOCK_GUARD();

    if (m->logging && (global_dirty_tracking & GLOBAL_DIRTY_DIRTY_RATE) &&
        !calc_dirty_rate_logs()) {
        memory_global_dirty_log_stop(GLOBAL_DIRTY_DIRTY_RATE);
    }
}

/* Sleeps; false if a migration starts meanwhile */
static bool sleep_until(int64_t end_ns)
{
    int64_t left_ns;

    while (!migration_is_running()) {
        left_ns = end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        if (left_ns <= 0) {
            return true;
        }
        g_usleep(MIN(left_ns, POLL_NS) / SCALE_US + 1);
    }
    return false;
}

static bool watch(Measurement *m, Error **errp)
{
    unsigned rounds = MAX(ROUNDS_MIN,
                          DIV_ROUND_UP(m->window_ns, ROUND_MAX_NS));
    int64_t sub_ns = MIN(m->window_ns / rounds / 4, SUB_WINDOW_MAX_NS);
    int64_t start_ns, begin_ns, now_ns;

    /*
     * Only after the first clear does the log tell what the guest writes.  It
     * may take long.  The second is quicker; the window begins with it.
     */
    if (!clear_all(m, false, errp) || !log_sync(m, &now_ns, errp) ||
        !clear_all(m, false, errp)) {
        return false;
    }
    start_ns = begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    trace_tlm_estimate_watch(rounds, m->window_ns / SCALE_MS);
    for (unsigned i = 1; i <= rounds; i++) {
        sleep_until(begin_ns + sub_ns);
        if (!count_dirty(m, errp)) {
            return false;
        }

        sleep_until(start_ns + m->window_ns / rounds * i);
        if (!log_sync(m, &now_ns, errp) || !clear_all(m, true, errp)) {
            return false;
        }
        begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    }
    m->window_ns = begin_ns - start_ns;
    return true;
}

static void fill_result(const Measurement *m, TlmEstimateResult *r)
{
    uint64_t seen = 0;

    for (unsigned i = 0; m->logging && i < m->nr_blocks; i++) {
        seen += bitmap_count_one(m->blocks[i].seen, m->blocks[i].pages);
    }
    *r = (TlmEstimateResult) {
        .window_ms = m->window_ns / SCALE_MS,
        .total_bytes = m->total_pages << m->page_bits,
        .working_set_bytes = seen << m->page_bits,
        .populated_known = m->populated_known,
        .populated_bytes = (m->populated_known ?
                            MAX(m->populated_pages, seen) :
                            m->total_pages) << m->page_bits,
    };
    if (m->sub_windows) {
        r->dirty_rate = m->sub_rate / m->sub_windows *
                        NANOSECONDS_PER_SECOND * (1 << m->page_bits);
    }
}

bool tlm_estimate_possible(Error **errp)
{
    if (migrating() || runstate_check(RUN_STATE_INMIGRATE)) {
        error_setg(errp, "A migration is running");
        return false;
    }
    if (calc_dirty_rate_logs()) {
        error_setg(errp, "'calc-dirty-rate' is measuring");
        return false;
    }
    return true;
}

bool tlm_estimate_measure(int64_t window_ns, TlmEstimateResult *result,
                          Error **errp)
{
    Measurement m = { .window_ns = window_ns };
    bool ok = setup_blocks(&m, errp);

    if (ok) {
        sample_populated(&m);
        ok = log_start(&m, errp);
        if (ok && m.logging) {
            ok = watch(&m, errp);
        }
        log_stop(&m);
    }
    if (ok) {
        fill_result(&m, result);
        trace_tlm_estimate(result->window_ms, result->working_set_bytes,
                           result->dirty_rate, result->populated_bytes);
    }
    free_blocks(&m);
    return ok;
}
