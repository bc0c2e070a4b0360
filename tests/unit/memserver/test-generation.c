/*
 * Generations against a model; the limits of memory; the file made of one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "generation.h"
#include "image.h"
#include "mapped.h"

#define PAGES 1500
#define STATE "some devices\0\0\6\0\0\0\017{\"devices\": []}"

static Layout *two_blocks(void)
{
    Layout *l = layout_new();
    LayoutBlock a = { "pc.ram", PAGES * PAGE_SIZE };
    LayoutBlock b = { "pc.rom", 3 * PAGE_SIZE };

    l->machine = g_strdup("pc");
    l->ram_id = 2;
    g_array_append_val(l->blocks, a);
    g_array_append_val(l->blocks, b);
    l->total = a.length + b.length;
    return l;
}

/* A page whose content says where it is and when it was written; 0: zero */
typedef uint64_t Model[PAGES];

static void send_pages(Generation *g, SlabCursor *c, Model model,
                       unsigned percent, uint64_t *stamp)
{
    MultifdPacket p = { .block = "pc.ram" };
    unsigned at = g_test_rand_int_range(0, PAGES);
    void *where[MULTIFD_PAGES];
    uint64_t pages[MULTIFD_PAGES];

    p.normal = g_test_rand_int_range(0, 60);
    p.zero = g_test_rand_int_range(0, 60);
    for (unsigned i = 0; i < p.normal + p.zero; i++) {
        pages[i] = (at + i) * percent % PAGES;
        p.offset[i] = pages[i] * PAGE_SIZE;
        model[pages[i]] = i < p.normal ? ++*stamp : 0;
    }
    g_assert_true(generation_place(g, c, 0, &p, where, NULL));
    for (unsigned i = 0; i < p.normal; i++) {
        memset(where[i], 0, PAGE_SIZE);
        memcpy(where[i], &model[pages[i]], sizeof(model[0]));
    }
}

static void compare(const Generation *g, const Model model)
{
    for (unsigned i = 0; i < PAGES; i++) {
        const void *page = generation_page(g, 0, i);
        uint64_t found = 0;

        if (page) {
            memcpy(&found, page, sizeof(found));
        }
        g_assert_cmpuint(found, ==, model[i]);
        g_assert_true((page != NULL) == (model[i] != 0));
    }
}

/* Chains of generations, of which old and new ones are dropped at random. */
static void test_chain(void)
{
    g_autoptr(Layout) l = two_blocks();
    Budget budget = { .limit = 1 << 30 };
    Slab *slab = slab_new(1 << 30, &budget, NULL);
    Generation *kept[4] = { NULL };
    Model model[4];
    uint64_t stamp = 0;

    g_mutex_init(&budget.lock);
    for (unsigned round = 0; round < 400; round++) {
        unsigned from = g_test_rand_int_range(0, 4);
        unsigned to = g_test_rand_int_range(0, 4);
        bool inherit = g_test_rand_bit(), fail = round % 5 == 4;
        SlabCursor cursors[2] = { { 0 } };
        Generation *g = generation_new(l, slab, kept[from], NULL);
        Model m = { 0 };

        if (kept[from] && inherit) {
            memcpy(m, model[from], sizeof(m));
        }
        for (unsigned n = g_test_rand_int_range(0, 20); n > 0; n--) {
            /* 7 and 1500 have no divisor in common: scattered, no repeats */
            send_pages(g, &cursors[n % 2], m, n % 3 ? 1 : 7, &stamp);
        }
        slab_close(slab, &cursors[0]);
        slab_close(slab, &cursors[1]);
        if (fail) {                     /* the source has died */
            generation_unref(g);
        } else {
            generation_seal(g, inherit);
            compare(g, m);
            if (kept[to]) {
                generation_unref(kept[to]);
            }
            kept[to] = g;
            memcpy(model[to], m, sizeof(m));
        }
        for (unsigned i = 0; i < 4; i++) {
            if (kept[i]) {
                compare(kept[i], model[i]);
            }
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        if (kept[i]) {
            generation_unref(kept[i]);
        }
    }
    /* Nothing is left. */
    g_assert_cmpuint(slab_used(slab), ==, 0);
    g_assert_cmpuint(budget.used, ==, 0);
    slab_leave(slab);
}

static void test_limits(void)
{
    Budget budget = { .limit = 3 * SLAB_CHUNK_SIZE };
    Slab *a = slab_new(2 * SLAB_CHUNK_SIZE, &budget, NULL);
    Slab *b = slab_new(1 << 30, &budget, NULL);
    SlabCursor x = { 0 }, y = { 0 };
    g_autoptr(GError) error = NULL;
    g_autofree uint32_t *slots = g_new(uint32_t, 2 * SLAB_CHUNK_SLOTS);
    uint32_t slot;

    g_mutex_init(&budget.lock);
    for (unsigned i = 0; i < 2 * SLAB_CHUNK_SLOTS; i++) {
        g_assert_true(slab_take(a, &x, &slots[i], NULL));
        memset(slab_page(a, slots[i]), 1, PAGE_SIZE);
        g_assert_true(i == 0 || slots[i] == slots[i - 1] + 1);
    }
    g_assert_false(slab_take(a, &x, &slot, &error));
    g_assert_nonnull(strstr(error->message, "quota"));
    g_clear_error(&error);
    for (unsigned i = 0; i < SLAB_CHUNK_SLOTS; i++) {
        g_assert_true(slab_take(b, &y, &slot, NULL));
    }
    g_assert_false(slab_take(b, &y, &slot, &error));
    g_assert_nonnull(strstr(error->message, "server's memory"));
    /* What one gives back the other may have. */
    slab_close(a, &x);
    slab_unref(a, slots, 2 * SLAB_CHUNK_SLOTS);
    g_assert_true(slab_take(b, &y, &slot, NULL));
    slab_close(b, &y);
    slab_leave(a);
    slab_leave(b);
    g_assert_null(slab_new(1, &budget, NULL));
    g_assert_null(slab_new(UINT64_MAX, &budget, NULL));
}

/* Two channels that send the same page at once must not break the server. */
typedef struct Race {
    Generation *g;
    Slab *slab;
} Race;

static void *race(void *opaque)
{
    Race *r = opaque;
    SlabCursor c = { 0 };
    MultifdPacket p = { .normal = 20, .zero = 20, .block = "pc.ram" };
    void *where[MULTIFD_PAGES];

    for (unsigned n = 0; n < 20000; n++) {
        for (unsigned i = 0; i < p.normal + p.zero; i++) {
            p.offset[i] = (n + i) % PAGES * PAGE_SIZE;
        }
        if (generation_place(r->g, &c, 0, &p, where, NULL)) {
            for (unsigned i = 0; i < p.normal; i++) {
                memset(where[i], n, 8);
            }
        }
    }
    slab_close(r->slab, &c);
    return NULL;
}

static void test_race(void)
{
    g_autoptr(Layout) l = two_blocks();
    Budget budget = { .limit = 1 << 30 };
    Slab *slab = slab_new(1 << 30, &budget, NULL);
    g_autoptr(Generation) parent = generation_new(l, slab, NULL, NULL);
    Race r = { generation_new(l, slab, NULL, NULL), slab };
    GThread *threads[3];

    g_mutex_init(&budget.lock);
    generation_unref(r.g);
    race(&(Race) { parent, slab });
    generation_seal(parent, false);
    r.g = generation_new(l, slab, parent, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = g_thread_new("race", race, &r);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_thread_join(threads[i]);
    }
    generation_seal(r.g, true);
    generation_unref(r.g);
    g_clear_pointer(&parent, generation_unref);
    g_assert_cmpuint(slab_used(slab), ==, 0);
    slab_leave(slab);
}

/* The file, read in any pieces, is one that the other half restores from. */
static void test_file(void)
{
    g_autoptr(Layout) l = two_blocks();
    g_autoptr(GByteArray) state = g_byte_array_new();
    Budget budget = { .limit = 1 << 30 };
    Slab *slab = slab_new(1 << 30, &budget, NULL);
    Generation *g = generation_new(l, slab, NULL, NULL);
    SlabCursor c = { 0 };
    Model model = { 0 };
    uint64_t stamp = 0;
    g_autoptr(GError) error = NULL;
    Mapped *file;
    MemImage *image;
    int fd = memfd_create("file", 0);

    g_mutex_init(&budget.lock);
    g_byte_array_append(state, (void *)STATE, sizeof(STATE) - 1);
    for (unsigned i = 0; i < 20; i++) {
        send_pages(g, &c, model, 7, &stamp);
    }
    slab_close(slab, &c);
    generation_seal(g, false);
    file = mapped_new(g, state, false);
    for (uint64_t at = 0; at < mapped_size(file); ) {
        uint8_t piece[5000];
        /* Not within MIN(), which would ask for it twice */
        size_t random = g_test_rand_int_range(1, sizeof(piece));
        size_t n = MIN(random, mapped_size(file) - at);
        bool any = mapped_read(file, at, piece, n);

        for (size_t i = 0; !any && i < n; i++) {
            g_assert_cmpuint(piece[i], ==, 0);
        }
        g_assert_cmpint(pwrite(fd, piece, n, at), ==, n);
        at += n;
    }
    image = mem_image_from_file(fd, "vm", "one", &error);
    g_assert_no_error(error);
    g_assert_true(layout_same_blocks(mem_image_layout(image), l));
    for (unsigned i = 0; i < PAGES; i++) {
        const uint64_t *page = mem_image_page(image, 0, i);

        g_assert_cmpuint(page ? *page : 0, ==, model[i]);
    }
    mem_image_unref(image);
    mapped_free(file);
    generation_unref(g);
    slab_leave(slab);
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memserver/generation/chain", test_chain);
    g_test_add_func("/memserver/generation/limits", test_limits);
    g_test_add_func("/memserver/generation/race", test_race);
    g_test_add_func("/memserver/generation/file", test_file);
    return g_test_run();
}
