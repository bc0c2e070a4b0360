/*
 * Fuzzer: what another server of a set says, up to the merge and to the pages
 * that are dropped
 *
 * The first byte says whether it is the head, or a part; or that a piece
 * follows.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "fuzz.h"
#include "merge.h"
#include "peer-proto.h"
#include "piece.h"
#include "ranks.h"

#define PARTS 3
#define A_PIECE 0xfd
#define MAX_RAM (1ull << 30)

/* As the head has it while it reads a part, or a part while it reads it. */
typedef struct Set {
    Layout *layout;
    Merge *merge;
    PageCursor cursor;
    uint64_t bits;
} Set;

static bool on_layout(void *opaque, const Layout *l, GError **errp)
{
    Set *s = opaque;
    uint64_t total = 0;

    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        g_assert(layout_pages(l, i));
        g_assert(layout_find(l, layout_block(l, i)->name) == i);
        total += layout_block(l, i)->length;
    }
    g_assert(total == l->total);
    s->layout = layout_copy(l);
    return l->total <= 64 << 20;        /* as announced */
}

static bool on_end(void *opaque, uint64_t syncs, GError **errp)
{
    return true;
}

static bool on_superseded(void *opaque, unsigned block, uint64_t first,
                          const uint64_t *words, unsigned count,
                          GError **errp)
{
    Set *s = opaque;

    g_assert(count && count <= PEER_MAX_WORDS && first % 64 == 0);
    for (unsigned i = 0; i < count; i++) {
        s->bits += words[i];
    }
    return page_cursor_move(&s->cursor, s->layout, block, first, count * 64ull,
                            NULL);
}

static bool on_ranks(void *opaque, unsigned block, uint64_t first,
                     const PeerRun *runs, unsigned count, GError **errp)
{
    Set *s = opaque;

    g_assert(count && count <= PEER_MAX_RUNS);
    for (unsigned i = 0; i < count; i++) {
        if (!page_cursor_move(&s->cursor, s->layout, block, first,
                              runs[i].count, NULL) ||
            !merge_add(s->merge, 1, block, first, runs[i].count, runs[i].rank,
                       NULL)) {
            return false;
        }
        first += runs[i].count;
    }
    return true;
}

static bool on_signal(void *opaque, PeerSignal signal, GError **errp)
{
    return true;
}

static bool on_failed(void *opaque, const char *text, GError **errp)
{
    g_assert(*text && strlen(text) <= 1000);
    return true;
}

static const PeerOps ops = {
    .layout = on_layout, .end = on_end, .superseded = on_superseded,
    .ranks = on_ranks, .step = on_signal, .failed = on_failed,
};

/* One of the head, whose part tells when its pages came */
static void begin_as_head(Set *s)
{
    LayoutBlock ram = { "pc.ram", 130 * PAGE_SIZE }, rom = { "r", PAGE_SIZE };

    s->layout = layout_new();
    g_array_append_val(s->layout->blocks, ram);
    g_array_append_val(s->layout->blocks, rom);
    s->merge = merge_new(s->layout, PARTS, NULL);
    merge_add(s->merge, 0, 0, 0, 100, 3, NULL);
    merge_add(s->merge, 2, 0, 50, 80, 1, NULL);
}

/* What comes before the pages of a piece (piece.h) */
static void feed_piece(const uint8_t *data, size_t size)
{
    uint64_t rest = size > PIECE_HEAD_SIZE ? piece_head(data, NULL) : 0;
    g_autoptr(Layout) layout = NULL;
    GByteArray *state = NULL;

    if (rest && rest <= size - PIECE_HEAD_SIZE &&
        piece_parse(data, data + PIECE_HEAD_SIZE, MAX_RAM, &layout, &state,
                    NULL)) {
        g_assert(layout->total <= MAX_RAM);
        g_byte_array_unref(state);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Set s = { 0 };
    PeerParser *p;
    PeerHello h;

    if (size && data[0] == A_PIECE) {
        feed_piece(data + 1, size - 1);
        return 0;
    }
    if (size > PEER_HELLO_SIZE && peer_check_start(data + 1, NULL) &&
        peer_get_hello(data + 1, &h, NULL)) {
        g_assert(part_is_possible(h.set, h.part, h.parts));
        data += PEER_HELLO_SIZE;
        size -= PEER_HELLO_SIZE;
    }
    if (!size) {
        return 0;
    }
    if (!(data[0] & 1)) {
        begin_as_head(&s);
    }
    p = peer_parser_new(data[0] & 1, &ops, &s);
    for (size_t at = 1, n; at < size; at += n) {
        n = MIN(1 + data[0], size - at);        /* in pieces */
        if (!peer_parser_feed(p, data + at, n, NULL)) {
            break;
        }
    }
    peer_parser_free(p);
    merge_free(s.merge);
    layout_free(s.layout);
    return 0;
}
