/*
 * Unit tests of the parts of a restore: owed pages, their order, credit, and
 * the parser of the return path
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <unistd.h>

#include "be.h"
#include "checkpoint-file.h"
#include "credit.h"
#include "order.h"
#include "rp.h"
#include "wire.h"

#define MS 1000000LL
#define HUGE (2 * PAGE_SIZE)            /* of block "huge" */

static const uint64_t ram_data[] = { 0, 1, 2, 40, 41, 99 };
static const uint64_t huge_data[] = { 5 };
static const TestBlock blocks[] = {
    { "ram", 100, ram_data, G_N_ELEMENTS(ram_data) },
    { "huge", 8, huge_data, G_N_ELEMENTS(huge_data) },
};
static const uint64_t sizes[] = { PAGE_SIZE, HUGE };

static MemImage *image_new(void)
{
    g_autoptr(GByteArray) b = checkpoint_bytes(blocks, G_N_ELEMENTS(blocks));
    g_autoptr(GError) err = NULL;
    int fd = checkpoint_fd(b->data, b->len);
    MemImage *m = mem_image_from_file(fd, NULL, NULL, &err);

    g_assert_no_error(err);
    close(fd);
    return m;
}

/* - owed */

static void test_owed(void)
{
    g_autoptr(MemImage) m = image_new();
    g_autoptr(Owed) o = owed_new(m, sizes, NULL);
    unsigned block = 0;
    uint64_t page = 3;
    static const uint8_t received[] = { 0x05, 0 /* pages 0 and 2 */,
                                        [12] = 8 /* and 99 */ };

    g_assert_cmpuint(owed_left(o), ==, 6 * PAGE_SIZE + HUGE);
    g_assert_cmpint(owed_kind(o, 0, 0), ==, OWED_DATA);
    g_assert_cmpint(owed_kind(o, 0, 3), ==, OWED_ZERO);
    g_assert_cmpint(owed_kind(o, 1, 2), ==, OWED_DATA); /* half of it */
    g_assert_cmpint(owed_kind(o, 1, 0), ==, OWED_ZERO);

    g_assert_true(owed_next(o, &block, &page));
    g_assert_cmpuint(page, ==, 40);
    g_assert_cmpint(owed_take(o, 0, 40), ==, OWED_DATA);
    g_assert_cmpint(owed_take(o, 0, 40), ==, OWED_NOT);
    g_assert_cmpint(owed_take(o, 0, 50), ==, OWED_ZERO);
    g_assert_cmpint(owed_take(o, 0, 50), ==, OWED_NOT);

    owed_received(o, 0, received);
    g_assert_cmpuint(owed_left(o), ==, 2 * PAGE_SIZE + HUGE);
    g_assert_cmpint(owed_kind(o, 0, 99), ==, OWED_NOT);
    page = 42;                          /* over the end, and around */
    g_assert_true(owed_next(o, &block, &page));
    g_assert_cmpuint(block, ==, 1);
    g_assert_cmpuint(page, ==, 2);
    owed_take(o, 1, 2);
    g_assert_true(owed_next(o, &block, &page));
    g_assert_cmpuint(block, ==, 0);
    g_assert_cmpuint(page, ==, 1);
    owed_take(o, 0, 1);
    owed_take(o, 0, 41);
    g_assert_cmpuint(owed_left(o), ==, 0);
    g_assert_false(owed_next(o, &block, &page));
}

static void test_page_sizes(void)
{
    g_autoptr(MemImage) m = image_new();
    static const uint64_t bad[][2] = {
        { 0, PAGE_SIZE }, { 2048, PAGE_SIZE }, { 3 * PAGE_SIZE, PAGE_SIZE },
        { PAGE_SIZE, 16 * PAGE_SIZE }, { 1ULL << 63, PAGE_SIZE },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_null(owed_new(m, bad[i], &err));
        g_assert_nonnull(err);
    }
}

/* - order */

static void assert_pick(Order *o, OrderFor what, unsigned block,
                        uint64_t page, bool data)
{
    Pick p;

    g_assert_true(order_next(o, what, &p));
    g_assert_cmpuint(p.block, ==, block);
    g_assert_cmpuint(p.page, ==, page);
    g_assert_cmpint(p.data, ==, data);
}

static void test_order(void)
{
    g_autoptr(MemImage) m = image_new();
    g_autoptr(Owed) owed = owed_new(m, sizes, NULL);
    g_autoptr(Order) o = order_new(owed);
    Pick p;
    unsigned zeros = 0;

    g_assert_false(order_next(o, ORDER_REQUEST, &p));
    g_assert_false(order_next(o, ORDER_FOLLOW, &p));
    assert_pick(o, ORDER_ALL, 0, 0, true);
    order_request(o, 0, 0);             /* is on its way */
    g_assert_false(order_has_requests(o));
    order_request(o, 0, 40);
    order_request(o, 0, 40);
    order_request(o, 0, 90);
    assert_pick(o, ORDER_ALL, 0, 40, true);
    assert_pick(o, ORDER_ALL, 0, 90, false);
    g_assert_false(order_has_requests(o));
    /* Goes on behind what was asked for; others are not owed any more */
    assert_pick(o, ORDER_FOLLOW, 0, 99, true);
    assert_pick(o, ORDER_FOLLOW, 1, 2, true);
    assert_pick(o, ORDER_ALL, 0, 1, true);
    order_request(o, 0, 3);
    assert_pick(o, ORDER_REQUEST, 0, 3, false);
    p = (Pick) { 0, 3, false };
    while (order_next_zero(o, &p)) {
        zeros++;
    }
    g_assert_cmpuint(zeros, ==, 36);    /* 4 to 39 */
    /* No neighbours of a huge page, or of one with data */
    p = (Pick) { 1, 2, false };
    g_assert_false(order_next_zero(o, &p));
    p = (Pick) { 0, 50, true };
    g_assert_false(order_next_zero(o, &p));
    assert_pick(o, ORDER_ALL, 0, 41, true);
    assert_pick(o, ORDER_ALL, 0, 2, true);
    g_assert_false(order_next(o, ORDER_ALL, &p));
    g_assert_cmpuint(owed_left(owed), ==, 0);
}

/* Whatever is asked for, in any order: each page exactly once. */
static void test_exactly_once(void)
{
    g_autoptr(MemImage) m = image_new();
    g_autoptr(GRand) rnd = g_rand_new_with_seed(1);

    for (unsigned run = 0; run < 2000; run++) {
        g_autoptr(Owed) owed = owed_new(m, sizes, NULL);
        g_autoptr(Order) o = order_new(owed);
        uint8_t sent[2][100] = { 0 }, wanted[2][100] = { 0 };
        Pick p;

        while (owed_left(owed) || order_has_requests(o)) {
            if (g_rand_boolean(rnd)) {
                unsigned block = g_rand_boolean(rnd);
                uint64_t page = g_rand_int_range(rnd, 0, block ? 4 : 100);

                wanted[block][page] = 1;
                order_request(o, block, page);
            } else if (order_next(o, g_rand_int_range(rnd, 0, 3), &p)) {
                do {
                    sent[p.block][p.page]++;
                } while (order_next_zero(o, &p));
            }
        }
        for (unsigned b = 0; b < 2; b++) {
            for (uint64_t i = 0; i < (b ? 4 : 100); i++) {
                bool data = b ? i == 2 : mem_image_page(m, 0, i) != NULL;

                g_assert_cmpuint(sent[b][i], <=, 1);
                if (data || wanted[b][i]) {
                    g_assert_cmpuint(sent[b][i], ==, 1);
                }
            }
        }
    }
}

/* - credit: a path, simulated */

typedef struct Path {
    double rate;                        /* bytes/s */
    int64_t delay;                      /* ns, there and back */
    int64_t held_up;                    /* ns at most, on a busy host */
} Path;

/* Sends for 3 s; returns bytes/s, and the longest time in the queue. */
static double run_path(const Path *path, bool busy, int64_t *queue)
{
    g_autoptr(Credit) c = credit_new(4);
    g_autoptr(GArray) back = g_array_new(false, false, sizeof(int64_t));
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    int64_t now = 1, free_at = 0, before = 0;
    unsigned answered = 0;
    uint64_t bytes = 0;

    *queue = 0;
    while (now < 3000 * MS) {
        while (credit_may(c, busy)) {
            uint64_t size = credit_pages(c, busy) * PAGE_SIZE;
            int64_t done;

            if (now > 1000 * MS) {
                *queue = MAX(*queue, free_at - now);
            }
            free_at = MAX(free_at, now) + size * 1e9 / path->rate;
            done = free_at + path->delay +
                   path->held_up * g_rand_double(rand);
            before = MAX(before, done);         /* none overtakes another */
            g_array_append_val(back, before);
            credit_ping(c, size, now);
            bytes += size;
        }
        now = g_array_index(back, int64_t, answered);
        g_assert_true(credit_pong(c, 5 + answered++, now));
    }
    return bytes / 3.0;
}

static void test_credit(void)
{
    static const Path paths[] = {
        { 1.2e9, MS / 20 }, { 50e6, MS / 5 }, { 50e6, 20 * MS },
        { 1.2e9, 20 * MS }, { 200e6, 20 * MS, 20 * MS },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(paths); i++) {
        int64_t queue;

        /* Nearly all of the path is used, and there is no long queue */
        g_assert_cmpfloat(run_path(&paths[i], false, &queue), >,
                          0.75 * paths[i].rate);
        g_assert_cmpfloat(run_path(&paths[i], true, &queue), >,
                          0.5 * paths[i].rate);
        g_assert_cmpint(queue, <, 6 * MS + paths[i].delay / 2);
    }
}

static void test_credit_answers(void)
{
    g_autoptr(Credit) c = credit_new(4);

    g_assert_true(credit_idle(c));
    g_assert_false(credit_pong(c, 4, 1));
    g_assert_cmpuint(credit_ping(c, 100, 1), ==, 5);
    g_assert_cmpuint(credit_ping(c, 200, 2), ==, 6);
    g_assert_false(credit_pong(c, 6, 3));   /* not in this order */
    g_assert_true(credit_pong(c, 5, 3));
    g_assert_false(credit_pong(c, 5, 3));
    g_assert_cmpuint(credit_in_flight(c), ==, 200);
    g_assert_false(credit_idle(c));
    g_assert_true(credit_pong(c, 6, 4));
    g_assert_true(credit_idle(c));
}

/* - return path */

typedef struct Heard {
    GString *log;
    bool refuse;
} Heard;

static bool on_pong(void *opaque, uint32_t value, GError **errp)
{
    g_string_append_printf(((Heard *)opaque)->log, "pong %u;", value);
    return true;
}

static bool on_request(void *opaque, unsigned block, uint64_t page,
                       GError **errp)
{
    g_string_append_printf(((Heard *)opaque)->log, "page %u %u;", block,
                           (unsigned)page);
    return true;
}

static bool on_received(void *opaque, unsigned block, const uint8_t *bitmap,
                        GError **errp)
{
    g_string_append_printf(((Heard *)opaque)->log, "bitmap %u %02x;", block,
                           bitmap[0]);
    return true;
}

static bool on_resume_ack(void *opaque, GError **errp)
{
    g_string_append(((Heard *)opaque)->log, "resume;");
    return true;
}

static bool on_shut(void *opaque, uint32_t value, GError **errp)
{
    g_string_append_printf(((Heard *)opaque)->log, "shut %u;", value);
    return true;
}

static const RpOps ops = {
    on_pong, on_request, on_received, on_resume_ack, on_shut,
};

/* The message @words: u8, be16, be32, be64 by their first letter, and names */
static void put(GByteArray *to, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    for (const char *f = format; *f; f++) {
        const char *name;

        switch (*f) {
        case '2':
            put_be16(to, va_arg(args, int));
            break;
        case '4':
            put_be32(to, va_arg(args, uint32_t));
            break;
        case '8':
            put_be64(to, va_arg(args, uint64_t));
            break;
        default:
            name = va_arg(args, const char *);
            put_u8(to, strlen(name));
            g_byte_array_append(to, (const void *)name, strlen(name));
        }
    }
    va_end(args);
}

/* Feeds all of @b, in pieces of @step bytes; what was heard, or "error". */
static char *hear(const GByteArray *b, unsigned step)
{
    g_autoptr(MemImage) m = image_new();
    Heard heard = { .log = g_string_new("") };
    g_autoptr(Rp) rp = rp_new(&ops, &heard, mem_image_layout(m), sizes);

    for (unsigned at = 0; at < b->len; at += step) {
        g_autoptr(GError) err = NULL;

        if (!rp_feed(rp, b->data + at, MIN(step, b->len - at), &err)) {
            g_assert_nonnull(err);
            g_string_append(heard.log, "error");
            break;
        }
    }
    return g_string_free(heard.log, false);
}

static void test_return_path(void)
{
    g_autoptr(GByteArray) b = g_byte_array_new();

    put(b, "224", 2, 4, 7);
    put(b, "2284n", 3, 12 + 5, 1ULL * HUGE, HUGE, "huge");
    put(b, "2284", 4, 12, 3ULL * HUGE, HUGE);
    put(b, "22n", 5, 4, "ram");
    put(b, "8", 16ULL);
    put(b, "888", 0x0100000000000000ULL, 0ULL, RAMBLOCK_RECV_BITMAP_ENDING);
    put(b, "224", 6, 4, 1);
    put(b, "22", 7, 0);
    put(b, "224", 1, 4, 0);
    for (unsigned step = 1; step < b->len + 1; step++) {
        g_autofree char *heard = hear(b, step);

        g_assert_cmpstr(heard, ==, "pong 7;page 1 1;page 1 3;bitmap 0 01;"
                        "resume;shut 0;");
    }
}

static void assert_refused(GByteArray *b)
{
    g_autofree char *heard = hear(b, b->len);

    g_assert_true(g_str_has_suffix(heard, "error"));
    g_assert_null(strchr(heard, ';'));
    g_byte_array_set_size(b, 0);
}

static void test_bad_return_path(void)
{
    g_autoptr(GByteArray) b = g_byte_array_new();

    put(b, "22", 0, 0);                             /* types */
    assert_refused(b);
    put(b, "22", 8, 0);
    assert_refused(b);
    put(b, "22", 2, 5);                             /* lengths */
    assert_refused(b);
    put(b, "22", 3, 13);
    assert_refused(b);
    put(b, "22", 3, 65535);
    assert_refused(b);
    put(b, "22", 5, 0);
    assert_refused(b);
    put(b, "2284", 4, 12, 0ULL, PAGE_SIZE);         /* no block yet */
    assert_refused(b);
    put(b, "2284n", 3, 12 + 4, 0ULL, PAGE_SIZE, "rom");
    assert_refused(b);
    put(b, "2284n", 3, 12 + 5, 0ULL, PAGE_SIZE, "ram");
    g_byte_array_append(b, (const void *)"", 1);    /* behind the name */
    assert_refused(b);
    put(b, "2284n", 3, 12 + 5, 0ULL, PAGE_SIZE, "huge");
    assert_refused(b);
    put(b, "2284n", 3, 12 + 4, 100ULL * PAGE_SIZE, PAGE_SIZE, "ram");
    assert_refused(b);
    put(b, "2284n", 3, 12 + 4, -1ULL * PAGE_SIZE, PAGE_SIZE, "ram");
    assert_refused(b);
    put(b, "2284n", 3, 12 + 4, 17ULL, PAGE_SIZE, "ram");
    assert_refused(b);
    put(b, "22n8", 5, 4, "ram", 24ULL);             /* bitmaps */
    assert_refused(b);
    put(b, "22n8", 5, 4, "ram", -8ULL);
    assert_refused(b);
    put(b, "22n8888", 5, 4, "ram", 16ULL, 0ULL, 0ULL, 0ULL);
    assert_refused(b);
    put(b, "224", 6, 4, 0);                         /* no resume */
    assert_refused(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/restore/owed", test_owed);
    g_test_add_func("/restore/page-sizes", test_page_sizes);
    g_test_add_func("/restore/order", test_order);
    g_test_add_func("/restore/exactly-once", test_exactly_once);
    g_test_add_func("/restore/credit", test_credit);
    g_test_add_func("/restore/credit/answers", test_credit_answers);
    g_test_add_func("/restore/return-path", test_return_path);
    g_test_add_func("/restore/return-path/bad", test_bad_return_path);
    return g_test_run();
}
