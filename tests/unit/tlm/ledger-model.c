/*
 * The ledger as it should be, slow and simple: a struct for each page
 *
 * Each call does the same to the ledger and to the model, which follows the
 * rules as ledger.h states them, and the two have to agree.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "ledger-model.h"

unsigned long random_below(Model *m, unsigned long end)
{
    return g_rand_int_range(m->rand, 0, end);
}

void model_init(Model *m, guint32 seed, unsigned long pages,
                unsigned long chunk_pages)
{
    *m = (Model) {
        .rand = g_rand_new_with_seed(seed),
        .words = DIV_ROUND_UP(pages, WORD_BITS),
        .pages = pages,
        .chunk_pages = chunk_pages,
    };
    /* One word more than the block needs: nobody may touch it */
    m->dirty = g_new0(unsigned long, m->words + 1);
    m->dirty[m->words] = 0x5aa5;
    m->page = g_new0(Page, pages);
    m->armed = g_new0(bool, DIV_ROUND_UP(pages, chunk_pages));
}

void model_start(Model *m)
{
    for (unsigned long p = 0; p < m->pages; p++) {
        m->page[p].unsent = test_bit(m->dirty, p);
        m->page[p].forgotten = !m->page[p].unsent;
    }
    tlm_ledger_block_init(&m->b, m->dirty, m->pages, m->chunk_pages);
}

void model_destroy(Model *m)
{
    g_assert_cmpuint(m->dirty[m->words], ==, 0x5aa5);
    tlm_ledger_block_destroy(&m->b);
    g_free(m->dirty);
    g_free(m->page);
    g_free(m->armed);
    g_rand_free(m->rand);
}

/* A block as at the start of a migration: all pages owed, none armed */
void model_new(Model *m, guint32 seed, unsigned long pages,
               unsigned long chunk_pages)
{
    model_init(m, seed, pages, chunk_pages);
    for (unsigned long p = 0; p < pages; p++) {
        set_bit(m->dirty, p);
    }
    model_start(m);
}

bool model_armed(const Model *m, unsigned long page)
{
    return m->armed[page / m->chunk_pages];
}

void model_arm(Model *m, unsigned long chunk)
{
    tlm_ledger_arm_chunk(&m->b, chunk);
    m->armed[chunk] = true;
}

void model_arm_all(Model *m)
{
    for (unsigned long c = 0; c < tlm_ledger_chunks(&m->b); c++) {
        model_arm(m, c);
    }
}

void model_write(Model *m, unsigned long page)
{
    m->page[page].written = true;
}

/* Between before_sync and after_sync: what is carried stays owed */
static void model_hint(Model *m, int when)
{
    unsigned long num = 0;

    if (m->hint != when) {
        return;
    }
    m->hint = HINT_NONE;
    for (unsigned long p = m->hint_start;
         p < m->pages && p - m->hint_start < m->hint_pages; p++) {
        Page *page = &m->page[p];
        bool found = test_bit(m->dirty, p);

        if (!page->dirty && (page->unsent || found)) {
            num++;
            page->forgotten = true;
            page->unsent = false;
            page->written &= !found;
        }
    }
    g_assert_cmpuint(tlm_ledger_forget(&m->b, m->hint_start, m->hint_pages),
                     ==, num);
}

static bool model_wants(const Page *page, TlmTake what)
{
    switch (what) {
    case TLM_TAKE_CLEAN:
        return page->unsent;
    case TLM_TAKE_SETTLED:
        return page->dirty && page->age >= SETTLED_AGE;
    case TLM_TAKE_DIRTY:
        return page->dirty;
    case TLM_TAKE_ALL:
        return page->dirty || page->unsent;
    case TLM_TAKE_HOT:
        return page->dirty && page->age < SETTLED_AGE;
    }
    g_assert_not_reached();
}

/* Runs of pages of this kind, one after the other */
static void check_runs(const Model *m, TlmTake what)
{
    unsigned long p = 0, first = 0, num;

    while ((num = tlm_ledger_next(&m->b, what, &first, m->pages))) {
        for (; p < first; p++) {
            g_assert_false(model_wants(&m->page[p], what));
        }
        for (; p < first + num; p++) {
            g_assert_true(model_wants(&m->page[p], what));
        }
        first += num;
    }
    for (; p < m->pages; p++) {
        g_assert_false(model_wants(&m->page[p], what));
    }
}

TlmLedgerCounts model_sync(Model *m, bool age)
{
    TlmLedgerCounts counts = {}, expected = {};
    uint64_t owed = 0;

    for (unsigned long p = 0; p < m->pages; p++) {
        owed += m->page[p].unsent || m->page[p].dirty;
    }
    g_assert_cmpuint(tlm_ledger_owed(&m->b), ==, owed);
    check_runs(m, TLM_TAKE_ALL);
    check_runs(m, TLM_TAKE_HOT);
    tlm_ledger_before_sync(&m->b);
    model_hint(m, HINT_EARLY);
    for (unsigned long p = 0; p < m->pages; p++) {
        if (m->page[p].written) {
            set_bit(m->dirty, p);
        }
    }
    model_hint(m, HINT_LATE);
    if (m->pages % WORD_BITS) {
        /* Not a page, whoever sets it */
        set_bit(m->dirty, m->pages);
    }
    tlm_ledger_after_sync(&m->b, age, &counts);

    for (unsigned long p = 0; p < m->pages; p++) {
        Page *page = &m->page[p];
        bool fresh = page->written;

        page->written = false;
        page->taken = false;
        if (fresh && page->unsent && !model_armed(m, p)) {
            /* The log says nothing, and mtx will come by */
            fresh = false;
        }
        if (fresh) {
            page->unsent = false;
            page->dirty = true;
            page->age = 0;
        } else if (page->dirty && age) {
            page->age = MIN(page->age + 1, MAX_AGE);
        }
        expected.clean_unsent += page->unsent;
        expected.dirty += page->dirty;
        expected.hot += page->dirty && page->age < SETTLED_AGE;
        expected.fresh += fresh;
        expected.revived += fresh && page->forgotten;
        page->forgotten &= !fresh;
    }
    g_assert_cmpuint(counts.clean_unsent, ==, expected.clean_unsent);
    g_assert_cmpuint(counts.dirty, ==, expected.dirty);
    g_assert_cmpuint(counts.hot, ==, expected.hot);
    g_assert_cmpuint(counts.fresh, ==, expected.fresh);
    g_assert_cmpuint(counts.revived, ==, expected.revived);
    return counts;
}

unsigned model_take_until(Model *m, TlmTake what,
                          unsigned long *cursor, unsigned long end,
                          unsigned max)
{
    g_autofree unsigned long *taken = g_new(unsigned long, max + 1);
    unsigned long p = *cursor;
    unsigned num = 0, got;

    taken[max] = ULONG_MAX;
    got = tlm_ledger_take(&m->b, what, cursor, end, taken, max);
    g_assert_cmpuint(got, <=, max);
    g_assert_cmpuint(taken[max], ==, ULONG_MAX);

    for (; p < end; p++) {
        if (what == TLM_TAKE_CLEAN && !model_armed(m, p)) {
            break;
        }
        if (model_wants(&m->page[p], what)) {
            if (num == max) {
                break;
            }
            g_assert_cmpuint(num, <, got);
            g_assert_cmpuint(taken[num], ==, p);
            /* The ordering invariant: once between two syncs */
            g_assert_false(m->page[p].taken);
            m->page[p].taken = true;
            m->page[p].unsent = false;
            m->page[p].dirty = false;
            num++;
        }
    }
    g_assert_cmpuint(got, ==, num);
    /* Behind what was looked at, in front of what is left */
    g_assert_cmpuint(*cursor, ==, p);
    return num;
}

unsigned model_take(Model *m, TlmTake what, unsigned long *cursor,
                    unsigned max)
{
    return model_take_until(m, what, cursor, m->pages, max);
}

unsigned long model_forget(Model *m, unsigned long start,
                           unsigned long npages)
{
    unsigned long num = 0;

    for (unsigned long p = start; p < m->pages && p - start < npages; p++) {
        bool owed = m->page[p].unsent || m->page[p].dirty;

        num += owed;
        m->page[p].forgotten |= owed;
        m->page[p].unsent = false;
        m->page[p].dirty = false;
    }
    g_assert_cmpuint(tlm_ledger_forget(&m->b, start, npages), ==, num);
    return num;
}

/* The ledger and the model say the same of every page */
void model_compare(Model *m)
{
    const TlmLedgerBlock *b = &m->b;

    g_assert_cmpuint(tlm_ledger_chunks(b), ==,
                     DIV_ROUND_UP(m->pages, m->chunk_pages));
    for (unsigned long c = 0; c < tlm_ledger_chunks(b); c++) {
        unsigned long end = MIN((c + 1) * m->chunk_pages, m->pages);
        bool dirty = false;

        for (unsigned long p = c * m->chunk_pages; p < end; p++) {
            const Page *page = &m->page[p];
            bool low = test_bit(b->unsent, p);
            bool high = test_bit(b->settled, p);

            g_assert_cmpuint(test_bit(b->dirty, p), ==, page->dirty);
            g_assert_false(page->dirty && page->unsent);
            if (page->dirty) {
                g_assert_cmpuint(high * 2 + low, ==, page->age);
            } else {
                g_assert_cmpuint(low, ==, page->unsent);
                g_assert_cmpint(high, ==, page->forgotten);
            }
            dirty |= page->dirty;
        }
        g_assert_cmpuint(tlm_ledger_chunk_dirty(b, c), ==, dirty);
        g_assert_cmpuint(tlm_ledger_chunk_armed(b, c), ==, m->armed[c]);
    }
    /* Nothing behind the end of the block */
    for (unsigned long p = m->pages; p < m->words * WORD_BITS; p++) {
        g_assert_false(test_bit(b->dirty, p));
        g_assert_false(test_bit(b->unsent, p));
        g_assert_false(test_bit(b->settled, p));
    }
    g_assert_cmpuint(m->dirty[m->words], ==, 0x5aa5);
}

/* All that was written or never sent gets taken in the end */
void model_finish(Model *m)
{
    unsigned long cursor = 0;

    model_sync(m, false);
    while (model_take(m, TLM_TAKE_ALL, &cursor, 1 + random_below(m, 300))) {
        model_compare(m);
    }
    g_assert_cmpuint(cursor, ==, m->pages);
    for (unsigned long p = 0; p < m->pages; p++) {
        g_assert_false(test_bit(m->b.dirty, p));
        g_assert_false(test_bit(m->b.unsent, p));
    }
}
