/*
 * What the servers of a set say to each other: written, and read in pieces
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>
#include <string.h>

#include "be.h"
#include "peer-proto.h"

#define UUID "7f5c9e8a-0d3b-4b8e-9d50-0c6f6f0b1a2c"
#define PARENT "6a6cd1b4-8f0e-4d0b-9d0e-0c1d2e3f4a5b"

static bool on_layout(void *opaque, const Layout *l, GError **errp)
{
    g_string_append_printf(opaque, "layout %s %u %u", l->machine, l->ram_id,
                           l->subsections->len);
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        g_string_append_printf(opaque, " %s:%" PRIu64,
                               layout_block(l, i)->name, layout_pages(l, i));
    }
    g_string_append_printf(opaque, " %" PRIu64 "\n", l->total);
    return true;
}

static bool on_end(void *opaque, uint64_t syncs, GError **errp)
{
    g_string_append_printf(opaque, "end %" PRIu64 "\n", syncs);
    return true;
}

static bool on_superseded(void *opaque, unsigned block, uint64_t first,
                          const uint64_t *words, unsigned count,
                          GError **errp)
{
    g_string_append_printf(opaque, "superseded %u %" PRIu64, block, first);
    for (unsigned i = 0; i < count; i++) {
        g_string_append_printf(opaque, " %" PRIx64, words[i]);
    }
    g_string_append_c(opaque, '\n');
    return true;
}

static bool on_ranks(void *opaque, unsigned block, uint64_t first,
                     const PeerRun *runs, unsigned count, GError **errp)
{
    g_string_append_printf(opaque, "ranks %u %" PRIu64, block, first);
    for (unsigned i = 0; i < count; i++) {
        g_string_append_printf(opaque, " %u*%u", runs[i].count, runs[i].rank);
    }
    g_string_append_c(opaque, '\n');
    return true;
}

static bool on_signal(void *opaque, PeerSignal signal, GError **errp)
{
    g_string_append_printf(opaque, "signal %d\n", signal);
    return true;
}

static bool on_failed(void *opaque, const char *text, GError **errp)
{
    g_string_append_printf(opaque, "failed %s\n", text);
    return true;
}

static const PeerOps ops = {
    .layout = on_layout, .end = on_end, .superseded = on_superseded,
    .ranks = on_ranks, .step = on_signal, .failed = on_failed,
};

/* What is understood, in pieces of up to @most bytes; "" after an error */
static char *parse(bool from_head, const GByteArray *b, unsigned most)
{
    GString *s = g_string_new(NULL);
    PeerParser *p = peer_parser_new(from_head, &ops, s);
    bool ok = true;

    for (size_t at = 0, n; ok && at < b->len; at += n) {
        size_t random = g_test_rand_int_range(1, most + 1);

        n = MIN(random, b->len - at);
        ok = peer_parser_feed(p, b->data + at, n, NULL);
    }
    peer_parser_free(p);
    if (!ok) {
        g_string_assign(s, "");
    }
    return g_string_free(s, false);
}

static Layout *two_blocks(void)
{
    Layout *l = layout_new();
    LayoutBlock a = { "pc.ram", 100 * PAGE_SIZE };
    LayoutBlock b = { "pc.rom", 3 * PAGE_SIZE };

    l->machine = g_strdup("pc-q35-10.0");
    l->ram_id = 2;
    g_byte_array_append(l->subsections, (void *)"12345", 5);
    g_array_append_val(l->blocks, a);
    g_array_append_val(l->blocks, b);
    l->total = a.length + b.length;
    return l;
}

static GByteArray *of_head(void)
{
    static const uint64_t words[2] = { 5, 1ull << 63 };
    GByteArray *b = g_byte_array_new();
    g_autoptr(Layout) l = two_blocks();

    peer_put_signal(b, PEER_ALIVE);
    peer_put_layout(b, l);
    peer_put_signal(b, PEER_ALIVE);
    peer_put_end(b, 77);
    peer_put_superseded(b, 0, 0, words, 2);
    peer_put_superseded(b, 1, 0, words + 1, 1);
    peer_put_signal(b, PEER_SUPERSEDED_END);
    peer_put_signal(b, PEER_COMMIT);
    return b;
}

static GByteArray *of_part(void)
{
    static const PeerRun runs[2] = { { 60, 1 }, { 40, 0 } };
    GByteArray *b = g_byte_array_new();

    peer_put_ranks(b, 0, 0, runs, 2);
    peer_put_ranks(b, 1, 0, runs, 1);
    peer_put_signal(b, PEER_RANKS_END);
    peer_put_signal(b, PEER_ALIVE);
    peer_put_signal(b, PEER_STORED);
    return b;
}

static void test_round_trip(void)
{
    g_autoptr(GByteArray) head = of_head(), part = of_part();

    for (unsigned most = 1; most < 2000; most = most * 2 + 1) {
        g_autofree char *said = parse(true, head, most);
        g_autofree char *answered = parse(false, part, most);

        g_assert_cmpstr(said, ==,
                        "layout pc-q35-10.0 2 5 pc.ram:100 pc.rom:3 421888\n"
                        "end 77\n"
                        "superseded 0 0 5 8000000000000000\n"
                        "superseded 1 0 8000000000000000\n"
                        "signal 1\n"
                        "signal 3\n");
        g_assert_cmpstr(answered, ==, "ranks 0 0 60*1 40*0\n"
                        "ranks 1 0 60*1\n"
                        "signal 0\n"
                        "signal 2\n");
    }
}

static void test_failed(void)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    g_autofree char *said = NULL, *long_text = g_strnfill(3000, 'x');
    g_autofree char *shortened = NULL;

    peer_put_failed(b, "disk\nfull");
    said = parse(true, b, 100);
    g_assert_cmpstr(said, ==, "failed disk?full\n");
    g_byte_array_set_size(b, 0);
    peer_put_failed(b, "");
    g_byte_array_set_size(b, 0);
    peer_put_failed(b, long_text);
    shortened = parse(false, b, 100);
    g_assert_cmpuint(strlen(shortened), ==, 1001 + strlen("failed "));
    /* Nothing comes after it. */
    peer_put_signal(b, PEER_STORED);
    g_clear_pointer(&said, g_free);
    said = parse(false, b, 100);
    g_assert_cmpstr(said, ==, "");
}

static void assert_refused(bool from_head, const GByteArray *b)
{
    g_autofree char *said = parse(from_head, b, 100);

    g_assert_cmpstr(said, ==, "");
}

/* Each message but in its turn */
static void test_order(void)
{
    g_autoptr(GByteArray) head = of_head(), part = of_part();

    assert_refused(false, head);
    assert_refused(true, part);
    for (unsigned i = PEER_RANKS_END; i <= PEER_COMMIT; i++) {
        g_autoptr(GByteArray) b = g_byte_array_new();

        peer_put_signal(b, i);
        assert_refused(true, b);
        if (i != PEER_RANKS_END) {
            assert_refused(false, b);
        }
        g_byte_array_append(head, b->data, b->len);
        assert_refused(true, head);
        g_byte_array_set_size(head, head->len - b->len);
    }
}

static void put_message(GByteArray *b, unsigned type, unsigned reserved,
                        uint32_t size, const char *payload)
{
    put_be16(b, type);
    put_be16(b, reserved);
    put_be32(b, size);
    g_byte_array_append(b, (void *)payload, strlen(payload));
}

static void test_impossible(void)
{
    static const struct {
        unsigned type, reserved;
        uint32_t size;
    } bad[] = {
        { 0 }, { 99 }, { UINT16_MAX }, { 9, 1 }, { 9, 0, 1 },
        { 1, 0, UINT32_MAX }, { 1, 0, (512 << 10) + 1 }, { 10, 0, 1001 },
        { 10, 0, 0 },                   /* FAILED without a text */
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GByteArray) b = g_byte_array_new();

        put_message(b, bad[i].type, bad[i].reserved, bad[i].size, "x");
        assert_refused(true, b);
    }
}

/* Layouts that are cut off anywhere, or have blocks that are not possible */
static void test_layout(void)
{
    g_autoptr(Layout) l = two_blocks();
    g_autoptr(GByteArray) good = g_byte_array_new();

    peer_put_layout(good, l);
    for (unsigned size = 0; size < good->len - 8; size++) {
        g_autoptr(GByteArray) b = g_byte_array_new();

        put_message(b, 1, 0, size, "");
        g_byte_array_append(b, good->data + 8, size);
        /* Cut between the two blocks it is one with a smaller machine. */
        if (size != good->len - 8 - (1 + 6 + 8)) {
            assert_refused(true, b);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        g_autoptr(GByteArray) b = g_byte_array_new();
        g_autoptr(Layout) bad = two_blocks();
        LayoutBlock *block = &g_array_index(bad->blocks, LayoutBlock, 1);

        switch (i) {
        case 0:
            block->length = 0;
            break;
        case 1:
            block->length = PAGE_SIZE + 1;
            break;
        case 2:
            block->length = INT64_MAX / PAGE_SIZE * PAGE_SIZE;
            break;
        case 3:
            strcpy(block->name, "pc.ram");
            break;
        }
        peer_put_layout(b, bad);
        assert_refused(true, b);
    }
}

/* Lists of pages without a page, or with half of one */
static void test_pages(void)
{
    static const char zeros[64];

    for (uint32_t size = 0; size < 28; size++) {
        g_autoptr(GByteArray) b = g_byte_array_new();

        put_message(b, 3, 0, size, "");
        g_byte_array_append(b, (void *)zeros, size);
        if (size != 20) {
            assert_refused(false, b);
        }
    }
}

static bool hear_hello(const GByteArray *b, PeerHello *h)
{
    return peer_check_start(b->data, NULL) && peer_get_hello(b->data, h, NULL);
}

static void test_hello(void)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    PeerHello h = { UUID, PARENT, 3, 4, 9, 1 }, got;

    peer_put_hello(b, &h);
    g_assert_cmpuint(b->len, ==, PEER_HELLO_SIZE);
    g_assert_cmpuint(get_be32(b->data), ==, PEER_MAGIC);
    g_assert_true(hear_hello(b, &got));
    g_assert_cmpstr(got.set, ==, UUID);
    g_assert_cmpstr(got.parent, ==, PARENT);
    g_assert_cmpuint(got.part, ==, 3);
    g_assert_cmpuint(got.parts, ==, 4);
    g_assert_cmpuint(got.channels, ==, 9);
    g_assert_cmpuint(got.level, ==, 1);
    for (unsigned at = 0; at < PEER_HELLO_SIZE - 12; at++) {
        b->data[at] ^= 0x80;            /* in all but the numbers */
        g_assert_false(hear_hello(b, &got));
        b->data[at] ^= 0x80;
    }
    memset(h.parent, 0, sizeof(h.parent));
    g_byte_array_set_size(b, 0);
    peer_put_hello(b, &h);
    g_assert_true(hear_hello(b, &got));
    g_assert_cmpstr(got.parent, ==, "");
    g_assert_true(part_is_possible(UUID, 1, 2));
    g_assert_false(part_is_possible(UUID, 2, 2));
    g_assert_false(part_is_possible(UUID, 0, 1));
    g_assert_false(part_is_possible(UUID, 0, PARTS_MAX + 1));
    g_assert_false(part_is_possible(NULL, 0, 2));
    g_assert_false(part_is_possible(UUID " ", 0, 2));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memserver/peer/round-trip", test_round_trip);
    g_test_add_func("/memserver/peer/failed", test_failed);
    g_test_add_func("/memserver/peer/order", test_order);
    g_test_add_func("/memserver/peer/impossible", test_impossible);
    g_test_add_func("/memserver/peer/layout", test_layout);
    g_test_add_func("/memserver/peer/pages", test_pages);
    g_test_add_func("/memserver/peer/hello", test_hello);
    return g_test_run();
}
