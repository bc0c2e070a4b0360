/*
 * Unit tests of the ledger
 *
 * Most of the work is done by a model that keeps one struct a page and
 * follows the rules as ledger.h states them, page by page.  Random
 * operations, with fixed seeds, are done to both, and after each the two
 * have to agree in every page.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "ledger-model.h"

#define STEPS 4000

static void test_init(void)
{
    static const unsigned long sizes[] = { 1, 63, 64, 65, 127, 128, 1000 };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        TlmLedgerCounts counts;
        Model m;

        model_new(&m, 1, sizes[i], 64);
        model_compare(&m);
        counts = model_sync(&m, false);
        g_assert_cmpuint(counts.clean_unsent, ==, sizes[i]);
        g_assert_cmpuint(counts.dirty, ==, 0);
        model_destroy(&m);
    }
}

static void test_init_no_memory(void)
{
    unsigned long dirty = 5;
    TlmLedgerBlock b;

    g_assert_false(tlm_ledger_block_init(&b, &dirty, 1UL << 56, 64));
    g_assert_cmpuint(dirty, ==, 5);
    g_assert_null(b.unsent);
    g_assert_null(b.armed);
}

/* Discarded pages (virtio-mem) are not set in bmap: never owed */
static void test_init_holes(void)
{
    unsigned long cursor = 0;
    Model m;

    model_init(&m, 1, 300, 64);
    for (unsigned long p = 0; p < 300; p += 3) {
        set_bit(m.dirty, p);
    }
    /* A stray bit behind the end is not a page */
    set_bit(m.dirty, 301);
    model_start(&m);
    model_compare(&m);
    model_arm_all(&m);
    g_assert_cmpuint(model_take(&m, TLM_TAKE_CLEAN, &cursor, 1000), ==, 100);
    /* Plugged and written to: no longer one of those that are left out */
    model_write(&m, 1);
    g_assert_cmpuint(model_sync(&m, false).revived, ==, 1);
    model_compare(&m);
    model_destroy(&m);
}

/*
 * Post-copy: what was forgotten is owed again, sent pages are not, and all that
 * is owed is in QEMU's bitmap then
 */
static void test_hand_over(void)
{
    unsigned long cursor = 0, bits = 0;
    Model m;

    /* Discarded from the start: 100 of 300 pages; a stray bit behind */
    model_init(&m, 1, 300, 64);
    for (unsigned long p = 0; p < 301; p++) {
        if (p % 3) {
            set_bit(m.dirty, p);
        }
    }
    model_start(&m);
    model_arm_all(&m);
    g_assert_cmpuint(model_take_until(&m, TLM_TAKE_CLEAN, &cursor, 90, 1000),
                     ==, 60);
    g_assert_cmpuint(model_forget(&m, 120, 30), ==, 20);
    model_write(&m, 1);                 /* was sent */
    model_write(&m, 121);               /* was forgotten */
    model_write(&m, 200);               /* was not sent yet */
    model_sync(&m, false);
    model_compare(&m);

    g_assert_cmpuint(tlm_ledger_revive(&m.b), ==, 100 + 20 - 1);
    g_assert_cmpuint(tlm_ledger_owed(&m.b), ==, 300 - 60 + 1);
    g_assert_cmpuint(tlm_ledger_revive(&m.b), ==, 0);
    tlm_ledger_give_back(&m.b);
    g_assert_cmpuint(tlm_ledger_owed(&m.b), ==, 300 - 60 + 1);
    for (unsigned long p = 0; p < 300; p++) {
        bool sent = p < 90 && p % 3 && p != 1;

        g_assert_cmpint(test_bit(m.dirty, p), ==, !sent);
        bits += test_bit(m.dirty, p);
    }
    g_assert_cmpuint(bits, ==, 241);
    g_assert_false(test_bit(m.dirty, 300));
    model_destroy(&m);
}

/* Gaps of pages that were sent are filled, if they are not too long */
static void test_fill_gaps(void)
{
    static const unsigned long owed[] = { 3, 5, 6, 10, 64, 130, 299 };
    unsigned long cursor = 0;
    Model m;

    model_new(&m, 1, 300, 64);
    model_arm_all(&m);
    model_sync(&m, false);
    g_assert_cmpuint(model_take(&m, TLM_TAKE_CLEAN, &cursor, 1000), ==, 300);
    for (unsigned i = 0; i < ARRAY_SIZE(owed); i++) {
        model_write(&m, owed[i]);
    }
    model_sync(&m, false);
    g_assert_cmpuint(tlm_ledger_runs(&m.b), ==, 6);
    g_assert_cmpuint(tlm_ledger_fill_gaps(&m.b, 1), ==, 1);
    g_assert_cmpuint(tlm_ledger_runs(&m.b), ==, 5);
    g_assert_cmpuint(tlm_ledger_fill_gaps(&m.b, 3), ==, 3);
    g_assert_cmpuint(tlm_ledger_runs(&m.b), ==, 4);
    /* Neither before the first one nor behind the last one */
    g_assert_cmpuint(tlm_ledger_fill_gaps(&m.b, 300), ==,
                     297 - ARRAY_SIZE(owed) - 4);
    g_assert_cmpuint(tlm_ledger_runs(&m.b), ==, 1);
    tlm_ledger_give_back(&m.b);
    for (unsigned long p = 0; p < 300; p++) {
        g_assert_cmpint(test_bit(m.dirty, p), ==, p >= 3);
    }
    model_destroy(&m);
}

/* What comes back between two syncs, by mistake, is counted */
static void test_owed_is_counted(void)
{
    unsigned long cursor = 0;
    Model m;

    model_new(&m, 1, 300, 64);
    model_arm_all(&m);
    model_sync(&m, false);
    g_assert_cmpuint(model_take(&m, TLM_TAKE_CLEAN, &cursor, 100), ==, 100);
    g_assert_cmpuint(tlm_ledger_owed(&m.b), ==, 200);
    set_bit(m.dirty, 7);
    g_assert_cmpuint(tlm_ledger_owed(&m.b), ==, 201);
    m.dirty[0] &= ~(1UL << 7);
    g_assert_cmpuint(tlm_ledger_owed(&m.b), ==, 200);
    model_destroy(&m);
}

static void test_take_in_order(void)
{
    unsigned long cursor = 0;
    unsigned long left = 1001;
    Model m;

    model_new(&m, 1, 1001, 256);
    model_arm_all(&m);
    while (left) {
        unsigned num = model_take(&m, TLM_TAKE_CLEAN, &cursor, 100);

        g_assert_cmpuint(num, ==, MIN(left, 100));
        left -= num;
    }
    g_assert_cmpuint(cursor, ==, 1001);
    g_assert_cmpuint(model_take(&m, TLM_TAKE_CLEAN, &cursor, 100), ==, 0);
    /* Nor is there anything for anybody else */
    cursor = 0;
    g_assert_cmpuint(model_take(&m, TLM_TAKE_ALL, &cursor, 100), ==, 0);
    model_destroy(&m);
}

static void test_disjoint(void)
{
    unsigned long clean = 0, dirty = 0;
    unsigned num;
    Model m;

    model_new(&m, 1, 640, 64);
    model_arm_all(&m);
    for (unsigned long p = 0; p < 640; p += 5) {
        model_write(&m, p);
    }
    model_sync(&m, false);
    /* Side by side: model_take() asserts that no page is taken twice */
    do {
        num = model_take(&m, TLM_TAKE_CLEAN, &clean, 7);
        num += model_take(&m, TLM_TAKE_DIRTY, &dirty, 3);
    } while (num);
    for (unsigned long p = 0; p < 640; p++) {
        g_assert_true(m.page[p].taken);
    }
    model_destroy(&m);
}

static void test_taken_then_written(void)
{
    unsigned long cursor = 0;
    Model m;

    model_new(&m, 1, 200, 64);
    model_arm_all(&m);
    g_assert_cmpuint(model_take(&m, TLM_TAKE_CLEAN, &cursor, 200), ==, 200);
    model_write(&m, 150);
    /* Not before the sync */
    cursor = 0;
    g_assert_cmpuint(model_take(&m, TLM_TAKE_ALL, &cursor, 200), ==, 0);
    model_sync(&m, false);
    cursor = 0;
    g_assert_cmpuint(model_take(&m, TLM_TAKE_ALL, &cursor, 200), ==, 1);
    g_assert_true(m.page[150].taken);
    model_destroy(&m);
}

static void test_aging(void)
{
    unsigned long cursor;
    TlmLedgerCounts counts;
    Model m;

    model_new(&m, 1, 100, 64);
    model_arm_all(&m);
    model_write(&m, 99);

    counts = model_sync(&m, true);
    g_assert_cmpuint(counts.fresh, ==, 1);
    for (unsigned age = 0; age <= MAX_AGE + 2; age++) {
        g_assert_cmpuint(counts.dirty, ==, 1);
        g_assert_cmpuint(m.page[99].age, ==, MIN(age, MAX_AGE));
        g_assert_cmpuint(counts.hot, ==, age < SETTLED_AGE);
        model_compare(&m);
        if (age < SETTLED_AGE) {
            cursor = 0;
            g_assert_cmpuint(model_take(&m, TLM_TAKE_SETTLED, &cursor, 100),
                             ==, 0);
        }
        /* Without @age, time stands still */
        counts = model_sync(&m, false);
        g_assert_cmpuint(m.page[99].age, ==, MIN(age, MAX_AGE));
        model_compare(&m);

        counts = model_sync(&m, true);
        g_assert_cmpuint(counts.fresh, ==, 0);
    }

    /* Written to again: hot again */
    model_write(&m, 99);
    counts = model_sync(&m, true);
    g_assert_cmpuint(counts.hot, ==, 1);
    model_compare(&m);
    model_sync(&m, true);
    model_sync(&m, true);
    cursor = 0;
    g_assert_cmpuint(model_take(&m, TLM_TAKE_SETTLED, &cursor, 100), ==, 1);
    model_compare(&m);
    model_destroy(&m);
}

/* Age must not make a page that mtx has to send look sent, or the reverse */
static void test_aging_keeps_unsent(void)
{
    Model m;

    model_new(&m, 1, 130, 64);
    model_arm_all(&m);
    for (unsigned i = 0; i < 8; i++) {
        model_write(&m, i);
        model_sync(&m, true);
        model_compare(&m);
        g_assert_true(m.page[129].unsent);
    }
    model_destroy(&m);
}

static void test_unarmed(void)
{
    unsigned long cursor = 0;
    TlmLedgerCounts counts;
    Model m;

    model_new(&m, 1, 512, 128);
    model_arm(&m, 0);

    /* mtx stops in front of what is not armed, and can go on later */
    g_assert_cmpuint(model_take(&m, TLM_TAKE_CLEAN, &cursor, 512), ==, 128);
    g_assert_cmpuint(cursor, ==, 128);
    g_assert_cmpuint(model_take(&m, TLM_TAKE_CLEAN, &cursor, 512), ==, 0);
    g_assert_cmpuint(cursor, ==, 128);
    cursor = 200;
    g_assert_cmpuint(model_take(&m, TLM_TAKE_CLEAN, &cursor, 512), ==, 0);
    g_assert_cmpuint(cursor, ==, 200);

    /* KVM_DIRTY_LOG_INITIALLY_SET: everything is said to be written to */
    for (unsigned long p = 0; p < 512; p++) {
        model_write(&m, p);
    }
    counts = model_sync(&m, false);
    g_assert_cmpuint(counts.dirty, ==, 128);
    g_assert_cmpuint(counts.clean_unsent, ==, 384);

    /* The stop stage takes them all the same */
    cursor = 0;
    g_assert_cmpuint(model_take(&m, TLM_TAKE_ALL, &cursor, 300), ==, 300);

    /* What has been sent stays reported, armed or not */
    model_write(&m, 200);
    counts = model_sync(&m, false);
    g_assert_cmpuint(counts.fresh, ==, 1);
    /* And what is dirty already stays dirty, and is hot again */
    model_sync(&m, true);
    model_sync(&m, true);
    g_assert_cmpuint(m.page[200].age, ==, 2);
    model_write(&m, 200);
    counts = model_sync(&m, true);
    g_assert_cmpuint(counts.hot, ==, 1);

    /* Armed: now the log counts */
    model_arm(&m, 3);
    model_write(&m, 511);
    counts = model_sync(&m, false);
    g_assert_cmpuint(counts.fresh, ==, 1);
    g_assert_true(m.page[511].dirty);
    model_compare(&m);
    model_destroy(&m);
}

static void test_forget(void)
{
    unsigned long cursor = 0;
    TlmLedgerCounts counts;
    Model m;

    model_new(&m, 1, 200, 64);
    model_arm_all(&m);
    for (unsigned long p = 40; p < 80; p++) {
        model_write(&m, p);
    }
    model_sync(&m, false);
    /* So that some of them have the low bit of their age set */
    model_sync(&m, true);
    g_assert_cmpuint(model_forget(&m, 30, 100), ==, 100);
    g_assert_cmpuint(model_forget(&m, 30, 100), ==, 0);
    model_compare(&m);
    /* Beyond the end of the block: cut off */
    g_assert_cmpuint(model_forget(&m, 190, 1000), ==, 10);
    g_assert_cmpuint(model_forget(&m, 200, 1), ==, 0);
    model_compare(&m);
    /* In use again, and written to */
    model_write(&m, 50);
    counts = model_sync(&m, false);
    g_assert_cmpuint(counts.revived, ==, 1);
    g_assert_cmpuint(model_take(&m, TLM_TAKE_ALL, &cursor, 200), ==, 91);
    g_assert_true(m.page[50].taken);
    model_destroy(&m);
}

/*
 * A hint that comes in the middle of a sync, before or after the log has been
 * read: pages of any age
 */
static void test_forget_during_sync(void)
{
    for (unsigned late = 0; late < 2; late++) {
        for (unsigned age = 0; age <= MAX_AGE; age++) {
            unsigned long cursor = 0;
            TlmLedgerCounts counts;
            Model m;

            model_new(&m, 1, 300, 64);
            model_arm_all(&m);
            /* [0, 100) is sent, [50, 150) dirty, the rest unsent */
            model_take(&m, TLM_TAKE_CLEAN, &cursor, 100);
            for (unsigned long p = 50; p < 150; p++) {
                model_write(&m, p);
            }
            model_sync(&m, false);
            for (unsigned i = 0; i < age; i++) {
                model_sync(&m, true);
            }
            for (unsigned long p = 40; p < 60; p++) {
                model_write(&m, p);
            }
            m.hint = late ? HINT_LATE : HINT_EARLY;
            m.hint_start = 30;
            m.hint_pages = 200;
            model_sync(&m, age & 1);
            model_compare(&m);
            model_sync(&m, true);
            model_compare(&m);
            /* They are in use again */
            for (unsigned long p = 0; p < 300; p++) {
                model_write(&m, p);
            }
            counts = model_sync(&m, false);
            g_assert_cmpuint(counts.dirty, ==, 300);
            g_assert_cmpuint(counts.revived, ==, late ? 90 : 80);
            model_destroy(&m);
        }
    }
}


/*
 * A migration as seen from the destination.  @guest counts the writes to a
 * page, @copy what of them has arrived: equal in the end, or something got
 * lost.  A chunk's log reports writes only from when it was cleared, and
 * everything before that: the worst that KVM does.
 */
static void test_nothing_lost(gconstpointer opaque)
{
    guint32 seed = GPOINTER_TO_UINT(opaque);
    unsigned long pages, chunk, walk = 0;
    g_autofree unsigned *guest = NULL;
    g_autofree unsigned *copy = NULL;
    g_autofree bool *log = NULL;
    g_autofree unsigned long *taken = g_new(unsigned long, 64);
    Model m;

    {
        g_autoptr(GRand) r = g_rand_new_with_seed(seed);

        chunk = 64UL << g_rand_int_range(r, 0, 4);
        pages = g_rand_int_range(r, 1, 3000);
    }
    model_new(&m, seed, pages, chunk);
    guest = g_new0(unsigned, pages);
    copy = g_new0(unsigned, pages);
    log = g_new(bool, pages);
    for (unsigned long p = 0; p < pages; p++) {
        guest[p] = 1;
        log[p] = true;
    }

    for (unsigned epoch = 0; epoch < 60; epoch++) {
        bool last = epoch == 59;
        unsigned long dirty_cursor = 0, all_cursor = 0;
        TlmLedgerCounts counts = {};
        g_autofree bool *seen = g_new0(bool, pages);
        unsigned long armed_now = random_below(&m, 4);
        unsigned num;

        /* sync: the log is read, not cleared */
        tlm_ledger_before_sync(&m.b);
        for (unsigned long p = 0; p < pages; p++) {
            if (log[p]) {
                set_bit(m.dirty, p);
            }
        }
        tlm_ledger_after_sync(&m.b, random_below(&m, 2), &counts);

        /* arm: what has dirty pages, and some more */
        for (unsigned long c = 0; c < tlm_ledger_chunks(&m.b); c++) {
            bool armed = tlm_ledger_chunk_armed(&m.b, c);

            if (!tlm_ledger_chunk_dirty(&m.b, c) &&
                (armed || (!last && armed_now == 0))) {
                continue;
            }
            for (unsigned long p = c * chunk;
                 p < MIN((c + 1) * chunk, pages); p++) {
                log[p] = false;
            }
            tlm_ledger_arm_chunk(&m.b, c);
            armed_now -= !armed && armed_now;
        }

        /* run: the guest writes while pages are taken */
        do {
            for (unsigned i = 0; !last && i < 20; i++) {
                unsigned long p = random_below(&m, pages);

                /* Half of the writes hit a tenth of the pages */
                p = i % 2 ? p : p / 10;
                guest[p]++;
                log[p] = true;
            }
            num = 0;
            for (unsigned i = 0; i < 2; i++) {
                unsigned max = 1 + random_below(&m, 64);
                unsigned got;

                if (last) {
                    got = tlm_ledger_take(&m.b, TLM_TAKE_ALL, &all_cursor,
                                          pages, taken, max);
                } else if (i) {
                    got = tlm_ledger_take(&m.b, TLM_TAKE_SETTLED,
                                          &dirty_cursor, pages, taken, max);
                } else {
                    got = tlm_ledger_take(&m.b, TLM_TAKE_CLEAN, &walk, pages,
                                          taken, max);
                }
                for (unsigned j = 0; j < got; j++) {
                    g_assert_cmpuint(taken[j], <, pages);
                    g_assert_false(seen[taken[j]]);
                    seen[taken[j]] = true;
                    copy[taken[j]] = guest[taken[j]];
                }
                num += got;
            }
        } while (last ? num : num && random_below(&m, 10));
    }

    g_assert_cmpmem(guest, pages * sizeof(*guest),
                    copy, pages * sizeof(*copy));
    model_destroy(&m);
}

static void test_random(gconstpointer opaque)
{
    guint32 seed = GPOINTER_TO_UINT(opaque);
    unsigned long pages, chunk, sweep = 0;
    bool kinds[4] = {};
    Model m;

    {
        g_autoptr(GRand) r = g_rand_new_with_seed(seed);

        chunk = 64UL << g_rand_int_range(r, 0, 4);
        pages = g_rand_int_range(r, 1, 6 * chunk);
    }
    model_new(&m, seed, pages, chunk);

    for (unsigned step = 0; step < STEPS; step++) {
        unsigned long start = random_below(&m, pages);
        unsigned max = 1 + random_below(&m, 130);

        switch (random_below(&m, 12)) {
        case 0:
            model_arm(&m, random_below(&m, tlm_ledger_chunks(&m.b)));
            break;
        case 1:
            m.hint = random_below(&m, HINT_LATE + 1);
            m.hint_start = start;
            m.hint_pages = 1 + random_below(&m, 70);
            model_sync(&m, random_below(&m, 2));
            sweep = 0;
            break;
        case 2:
            model_forget(&m, start, 1 + random_below(&m, 70));
            break;
        case 3:
            kinds[0] |= model_take_until(&m, TLM_TAKE_CLEAN, &m.walk,
                                         random_below(&m, m.pages) + 1, max);
            break;
        case 4:
            kinds[1] |= model_take(&m, TLM_TAKE_SETTLED, &sweep, max);
            break;
        case 5:
            kinds[2] |= model_take(&m, TLM_TAKE_DIRTY, &sweep, max);
            break;
        case 6:
            if (random_below(&m, 10) == 0) {
                kinds[3] |= model_take(&m, TLM_TAKE_ALL, &start, max);
            }
            break;
        default:
            for (unsigned long n = random_below(&m, 9); n; n--) {
                model_write(&m, random_below(&m, pages));
            }
            for (unsigned long n = random_below(&m, 20);
                 n && start + n < pages; n--) {
                model_write(&m, start + n);
            }
            break;
        }
        model_compare(&m);
    }
    model_finish(&m);

    /* A seed that never comes to one of the kinds tests little */
    g_assert_true(kinds[1] && kinds[2] && kinds[3]);
    model_destroy(&m);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/ledger/init", test_init);
    g_test_add_func("/ledger/init/no-memory", test_init_no_memory);
    g_test_add_func("/ledger/init/holes", test_init_holes);
    g_test_add_func("/ledger/owed", test_owed_is_counted);
    g_test_add_func("/ledger/hand-over", test_hand_over);
    g_test_add_func("/ledger/fill-gaps", test_fill_gaps);
    g_test_add_func("/ledger/take/in-order", test_take_in_order);
    g_test_add_func("/ledger/take/disjoint", test_disjoint);
    g_test_add_func("/ledger/take/written-after", test_taken_then_written);
    g_test_add_func("/ledger/aging", test_aging);
    g_test_add_func("/ledger/aging/unsent", test_aging_keeps_unsent);
    g_test_add_func("/ledger/unarmed", test_unarmed);
    g_test_add_func("/ledger/forget", test_forget);
    g_test_add_func("/ledger/forget-during-sync", test_forget_during_sync);
    for (unsigned seed = 1; seed <= 20; seed++) {
        g_autofree char *name = g_strdup_printf("/ledger/random/%u", seed);
        g_autofree char *lost = g_strdup_printf("/ledger/nothing-lost/%u",
                                                seed);

        g_test_add_data_func(name, GUINT_TO_POINTER(seed), test_random);
        g_test_add_data_func(lost, GUINT_TO_POINTER(seed),
                             test_nothing_lost);
    }
    return g_test_run();
}
