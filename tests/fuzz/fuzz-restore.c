/*
 * Fuzz target: the file of a checkpoint, and what QEMU says in a restore
 *
 * The first byte says which.  Without libFuzzer (FUZZ_MAIN), a fixed number of
 * inputs is made by changing good ones, with a fixed seed: that is a unit test.
 * With "--seeds DIRECTORY" it writes the good ones there instead.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <unistd.h>

#include "be.h"
#include "checkpoint-file.h"
#include "fuzz.h"
#include "order.h"
#include "rp.h"

static const uint64_t data_pages[] = { 0, 3 };
static const TestBlock blocks[] = {
    { "ram", 6, data_pages, 2 },
    { "rom", 2, data_pages, 1 },
};

static GByteArray *good_file(void)
{
    return checkpoint_bytes(blocks, G_N_ELEMENTS(blocks));
}

static MemImage *open_bytes(const uint8_t *data, size_t size)
{
    int fd = checkpoint_fd(data, size);
    MemImage *m = mem_image_from_file(fd, NULL, NULL, NULL);

    close(fd);
    return m;
}

/* An image that is accepted can be read and sent, all of it. */
static void fuzz_file(const uint8_t *data, size_t size)
{
    g_autoptr(MemImage) m = open_bytes(data, size);
    g_autofree uint64_t *sizes = NULL;
    g_autoptr(Owed) owed = NULL;
    g_autoptr(Order) order = NULL;
    const Layout *l;
    volatile uint8_t sum = 0;           /* or nothing would be read */
    Pick p;

    if (!m) {
        return;
    }
    l = mem_image_layout(m);
    sizes = g_new(uint64_t, layout_num_blocks(l));
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        sizes[i] = PAGE_SIZE;
    }
    owed = owed_new(m, sizes, NULL);
    order = order_new(owed);
    while (order_next(order, ORDER_ALL, &p)) {
        const uint8_t *page = mem_image_page(m, p.block, p.page);

        sum += page[0] + page[PAGE_SIZE - 1];
    }
    g_assert_cmpuint(owed_left(owed), ==, 0);
}

typedef struct Heard {
    Owed *owed;
    Order *order;
} Heard;

static bool on_value(void *opaque, uint32_t value, GError **errp)
{
    return true;
}

static bool on_request(void *opaque, unsigned block, uint64_t page,
                       GError **errp)
{
    order_request(((Heard *)opaque)->order, block, page);
    return true;
}

static bool on_received(void *opaque, unsigned block, const uint8_t *bitmap,
                        GError **errp)
{
    owed_received(((Heard *)opaque)->owed, block, bitmap);
    return true;
}

static bool on_ack(void *opaque, GError **errp)
{
    return true;
}

static void fuzz_return_path(const uint8_t *data, size_t size)
{
    static const RpOps ops = {
        on_value, on_request, on_received, on_ack, on_value,
    };
    static const uint64_t sizes[] = { PAGE_SIZE, 2 * PAGE_SIZE };
    g_autoptr(GByteArray) b = good_file();
    g_autoptr(MemImage) m = open_bytes(b->data, b->len);
    g_autoptr(Owed) owed = owed_new(m, sizes, NULL);
    g_autoptr(Order) order = order_new(owed);
    Heard heard = { owed, order };
    g_autoptr(Rp) rp = rp_new(&ops, &heard, mem_image_layout(m), sizes);
    size_t half = size / 2;

    if (rp_feed(rp, data, half, NULL)) {
        rp_feed(rp, data + half, size - half, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size) {
        (data[0] & 1 ? fuzz_file : fuzz_return_path)(data + 1, size - 1);
    }
    return 0;
}

#ifdef FUZZ_MAIN

#define INPUTS 4000

static GByteArray *good_return_path(void)
{
    GByteArray *b = g_byte_array_new();

    put_be16(b, 2);                     /* PONG */
    put_be16(b, 4);
    put_be32(b, 7);
    put_be16(b, 3);                     /* REQ_PAGES_ID */
    put_be16(b, 12 + 4);
    put_be64(b, PAGE_SIZE);
    put_be32(b, PAGE_SIZE);
    g_byte_array_append(b, (const void *)"\3ram", 4);
    put_be16(b, 5);                     /* RECV_BITMAP */
    put_be16(b, 4);
    g_byte_array_append(b, (const void *)"\3rom", 4);
    put_be64(b, 8);
    put_be64(b, 1ULL << 56);
    put_be64(b, 0x0123456789abcdefULL);
    return b;
}

/* Bytes that are special, or any; more in the head of a file. */
static void change(GByteArray *b, GRand *rnd)
{
    static const uint8_t special[] = { 0, 1, 0x7f, 0x80, 0xff };
    unsigned head = g_rand_boolean(rnd) ? MIN(b->len, 300) : b->len;
    unsigned at = g_rand_int_range(rnd, 1, head);

    b->data[at] = g_rand_boolean(rnd) ? g_rand_int(rnd) :
                  special[g_rand_int_range(rnd, 0, sizeof(special))];
    if (!g_rand_int_range(rnd, 0, 8)) {
        g_byte_array_set_size(b, g_rand_int_range(rnd, 1, b->len + 1));
    }
}

/* With its first byte, @kind */
static GByteArray *good_input(uint8_t kind)
{
    GByteArray *b = kind ? good_file() : good_return_path();

    return g_byte_array_prepend(b, &kind, 1);
}

static void test_fuzz(gconstpointer is_file)
{
    g_autoptr(GRand) rnd = g_rand_new_with_seed(1);

    for (unsigned i = 0; i < INPUTS; i++) {
        uint8_t kind = is_file != NULL;
        g_autoptr(GByteArray) b = good_input(kind);

        for (unsigned n = g_rand_int_range(rnd, 0, 4); n && b->len > 1; n--) {
            change(b, rnd);
        }
        b->data[0] = kind;
        LLVMFuzzerTestOneInput(b->data, b->len);
    }
}

static int write_seeds(const char *directory)
{
    for (uint8_t kind = 0; kind < 2; kind++) {
        g_autoptr(GByteArray) b = good_input(kind);
        g_autofree char *path = g_strdup_printf("%s/seed-%u", directory, kind);

        if (!g_file_set_contents(path, (void *)b->data, b->len, NULL)) {
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--seeds")) {
        return write_seeds(argv[2]);
    }
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/fuzz/file", "", test_fuzz);
    g_test_add_data_func("/fuzz/return-path", NULL, test_fuzz);
    return g_test_run();
}

#endif
