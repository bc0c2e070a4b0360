/*
 * What the servers of a set say to each other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "be.h"
#include "error.h"
#include "peer-proto.h"
#include "text.h"

#define VERSION 2
#define HEADER_SIZE 8                   /* type, 0, length */
#define TEXT_MAX 1000
#define MACHINE_MAX 256                 /* as QEMU's */
#define SUBSECTIONS_MAX 4096

typedef enum Type {
    LAYOUT = 1, END, RANKS, RANKS_END, SUPERSEDED, SUPERSEDED_END, STORED,
    COMMIT, ALIVE, FAILED,
    TYPES,
} Type;

/* What may come next; a message moves the parser to the state behind it. */
typedef enum State {
    AT_LAYOUT, AT_END, AT_SUPERSEDED, AT_COMMIT,        /* from the head */
    AT_RANKS, AT_STORED,                                /* from a part */
    AT_NOTHING,
} State;

static const struct {
    State state, next;
    uint32_t max;                       /* bytes of payload */
} rules[TYPES] = {
    [LAYOUT] = { AT_LAYOUT, AT_END, 512 << 10 },
    [END] = { AT_END, AT_SUPERSEDED, 8 },
    [SUPERSEDED] = { AT_SUPERSEDED, AT_SUPERSEDED, 12 + PEER_MAX_WORDS * 8 },
    [SUPERSEDED_END] = { AT_SUPERSEDED, AT_COMMIT, 0 },
    [COMMIT] = { AT_COMMIT, AT_NOTHING, 0 },
    [RANKS] = { AT_RANKS, AT_RANKS, 12 + PEER_MAX_RUNS * 8 },
    [RANKS_END] = { AT_RANKS, AT_STORED, 0 },
    [STORED] = { AT_STORED, AT_NOTHING, 0 },
    [ALIVE] = { .max = 0 },             /* these two at any time */
    [FAILED] = { .max = TEXT_MAX },
};

static const uint8_t signal_types[] = {
    [PEER_RANKS_END] = RANKS_END,
    [PEER_SUPERSEDED_END] = SUPERSEDED_END,
    [PEER_STORED] = STORED,
    [PEER_COMMIT] = COMMIT,
    [PEER_ALIVE] = ALIVE,
};

bool part_is_possible(const char *set, uint64_t part, uint64_t parts)
{
    return set && strlen(set) == PEER_SET_SIZE &&
        g_uuid_string_is_valid(set) && parts > 1 && parts <= PARTS_MAX &&
        part < parts;
}

/* Introduction */

void peer_put_hello(GByteArray *to, const PeerHello *h)
{
    put_be32(to, PEER_MAGIC);
    put_be32(to, VERSION);
    g_byte_array_append(to, (void *)h->set, PEER_SET_SIZE);
    g_byte_array_append(to, (void *)h->parent, PEER_SET_SIZE);
    put_be32(to, h->part);
    put_be32(to, h->parts);
    put_be32(to, h->channels);
    put_be32(to, h->level);
}

bool peer_check_start(const uint8_t *from, GError **errp)
{
    return (get_be32(from) == PEER_MAGIC && get_be32(from + 4) == VERSION) ||
        ms_fail(errp, "the other server speaks version %u of the protocol "
                "between servers, this one version %u: have the same "
                "tlm-memserver at both", get_be32(from + 4), VERSION);
}

static const uint8_t *get_set(const uint8_t *from, char *to)
{
    memcpy(to, from, PEER_SET_SIZE);
    to[PEER_SET_SIZE] = 0;
    return from + PEER_SET_SIZE;
}

bool peer_get_hello(const uint8_t *from, PeerHello *h, GError **errp)
{
    from += PEER_START_SIZE;
    from = get_set(from, h->set);
    from = get_set(from, h->parent);
    h->part = get_be32(from);
    h->parts = get_be32(from + 4);
    h->channels = get_be32(from + 8);
    h->level = get_be32(from + 12);
    return (part_is_possible(h->set, h->part, h->parts) &&
            (!*h->parent || g_uuid_string_is_valid(h->parent))) ||
        ms_fail(errp, "the introduction of a server is not possible");
}

/* Writing */

static void put_header(GByteArray *to, Type type, uint32_t size)
{
    put_be16(to, type);
    put_be16(to, 0);
    put_be32(to, size);
}

static void put_bytes(GByteArray *to, const void *bytes, uint16_t size)
{
    put_be16(to, size);
    g_byte_array_append(to, bytes, size);
}

void peer_put_layout(GByteArray *to, const Layout *l)
{
    g_autoptr(GByteArray) b = g_byte_array_new();

    put_be32(b, l->ram_id);
    put_bytes(b, l->machine, strlen(l->machine));
    put_bytes(b, l->subsections->data, l->subsections->len);
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        const LayoutBlock *block = layout_block(l, i);

        put_u8(b, strlen(block->name));
        g_byte_array_append(b, (void *)block->name, strlen(block->name));
        put_be64(b, block->length);
    }
    put_header(to, LAYOUT, b->len);
    g_byte_array_append(to, b->data, b->len);
}

void peer_put_end(GByteArray *to, uint64_t syncs)
{
    put_header(to, END, 8);
    put_be64(to, syncs);
}

/* What is said of pages from @first on: @count times 8 bytes follow. */
static void put_pages(GByteArray *to, Type type, unsigned block,
                      uint64_t first, unsigned count)
{
    put_header(to, type, 12 + count * 8);
    put_be32(to, block);
    put_be64(to, first);
}

void peer_put_ranks(GByteArray *to, unsigned block, uint64_t first,
                    const PeerRun *runs, unsigned count)
{
    g_assert(count <= PEER_MAX_RUNS);
    put_pages(to, RANKS, block, first, count);
    for (unsigned i = 0; i < count; i++) {
        put_be32(to, runs[i].count);
        put_be32(to, runs[i].rank);
    }
}

void peer_put_superseded(GByteArray *to, unsigned block, uint64_t first,
                         const uint64_t *words, unsigned count)
{
    g_assert(count <= PEER_MAX_WORDS);
    put_pages(to, SUPERSEDED, block, first, count);
    for (unsigned i = 0; i < count; i++) {
        put_be64(to, words[i]);
    }
}

void peer_put_signal(GByteArray *to, PeerSignal signal)
{
    put_header(to, signal_types[signal], 0);
}

void peer_put_failed(GByteArray *to, const char *text)
{
    unsigned size = MIN(strlen(text), TEXT_MAX);

    if (!size) {
        peer_put_failed(to, "no reason is known");
        return;
    }
    put_header(to, FAILED, size);
    for (unsigned i = 0; i < size; i++) {
        put_u8(to, g_ascii_isprint(text[i]) ? text[i] : '?');
    }
}

/* Reading */

struct PeerParser {
    const PeerOps *ops;
    void *opaque;
    State state;
    GByteArray *message;                /* what has come of it */
    size_t want;                        /* bytes of it: header, or all */
};

PeerParser *peer_parser_new(bool from_head, const PeerOps *ops, void *opaque)
{
    PeerParser *p = g_new0(PeerParser, 1);

    p->ops = ops;
    p->opaque = opaque;
    p->state = from_head ? AT_LAYOUT : AT_RANKS;
    p->message = g_byte_array_new();
    p->want = HEADER_SIZE;
    return p;
}

void peer_parser_free(PeerParser *p)
{
    if (p) {
        g_byte_array_unref(p->message);
        g_free(p);
    }
}

static bool broken(GError **errp, const char *what)
{
    return ms_fail(errp, "the other server breaks the protocol: %s", what);
}

static const uint8_t *take_counted(Reader *r, size_t max, size_t *size)
{
    const uint8_t *p = reader_take(r, 2);

    *size = p ? get_be16(p) : 0;
    return p && *size <= max ? reader_take(r, *size) : NULL;
}

static bool get_block(Reader *r, Layout *l)
{
    LayoutBlock b = { .length = 0 };
    const uint8_t *size = reader_take(r, 1);
    const uint8_t *name = size ? reader_take(r, *size) : NULL;
    const uint8_t *length = name ? reader_take(r, 8) : NULL;

    if (!length || !text_is_printable(name, *size)) {
        return false;
    }
    memcpy(b.name, name, *size);
    b.length = get_be64(length);
    if (!layout_takes(l, &b, INT64_MAX - l->total)) {
        return false;
    }
    g_array_append_val(l->blocks, b);
    l->total += b.length;
    return true;
}

static bool get_layout(PeerParser *p, Reader r, GError **errp)
{
    g_autoptr(Layout) l = layout_new();
    const uint8_t *id = reader_take(&r, 4), *machine, *subsections;
    size_t size, more;

    machine = take_counted(&r, MACHINE_MAX, &size);
    subsections = take_counted(&r, SUBSECTIONS_MAX, &more);
    if (!id || !machine || !subsections ||
        !text_is_printable(machine, size)) {
        return broken(errp, "a machine that is not possible");
    }
    l->ram_id = get_be32(id);
    l->machine = g_strndup((const char *)machine, size);
    g_byte_array_append(l->subsections, subsections, more);
    while (r.left) {
        if (!get_block(&r, l)) {
            return broken(errp, "a RAM block that is not possible");
        }
    }
    if (!layout_num_blocks(l)) {
        return broken(errp, "a machine without RAM");
    }
    return p->ops->layout(p->opaque, l, errp);
}

static bool get_ranks(PeerParser *p, unsigned block, uint64_t first, Reader r,
                      GError **errp)
{
    g_autofree PeerRun *runs = g_new(PeerRun, r.left / 8);
    unsigned count = 0;

    while (r.left) {
        const uint8_t *run = reader_take(&r, 8);

        runs[count++] = (PeerRun) { get_be32(run), get_be32(run + 4) };
    }
    return p->ops->ranks(p->opaque, block, first, runs, count, errp);
}

static bool get_superseded(PeerParser *p, unsigned block, uint64_t first,
                           Reader r, GError **errp)
{
    g_autofree uint64_t *words = g_new(uint64_t, r.left / 8);
    unsigned count = 0;

    if (first % 64) {
        return broken(errp, "a bitmap that begins within a word");
    }
    while (r.left) {
        words[count++] = get_be64(reader_take(&r, 8));
    }
    return p->ops->superseded(p->opaque, block, first, words, count, errp);
}

/* RANKS, SUPERSEDED: block, first page, one or more of 8 bytes */
static bool get_pages(PeerParser *p, Type type, Reader r, GError **errp)
{
    const uint8_t *head = reader_take(&r, 12);

    if (!head || !r.left || r.left % 8) {
        return broken(errp, "a list of pages that is cut off");
    }
    return type == RANKS
        ? get_ranks(p, get_be32(head), get_be64(head + 4), r, errp)
        : get_superseded(p, get_be32(head), get_be64(head + 4), r, errp);
}

static bool get_failed(PeerParser *p, Reader r, GError **errp)
{
    g_autofree char *text = NULL;

    if (!text_is_printable(r.at, r.left)) {
        return broken(errp, "an error without a text");
    }
    text = g_strndup((const char *)r.at, r.left);
    p->state = AT_NOTHING;
    return p->ops->failed(p->opaque, text, errp);
}

static bool get_signal(PeerParser *p, Type type, GError **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(signal_types); i++) {
        if (signal_types[i] == type && type != ALIVE) {
            return p->ops->step(p->opaque, i, errp);
        }
    }
    return true;
}

static bool check_header(PeerParser *p, GError **errp)
{
    unsigned type = get_be16(p->message->data);
    uint32_t size = get_be32(p->message->data + 4);

    if (!type || type >= TYPES || get_be16(p->message->data + 2)) {
        return broken(errp, "a message of unknown type");
    }
    if (type < ALIVE && rules[type].state != p->state) {
        return broken(errp, "a message that does not come now");
    }
    if (size > rules[type].max) {
        return broken(errp, "a message that is too long");
    }
    p->want = HEADER_SIZE + size;
    return true;
}

static bool message(PeerParser *p, GError **errp)
{
    Type type = get_be16(p->message->data);
    Reader r = { p->message->data + HEADER_SIZE, p->want - HEADER_SIZE };

    if (type < ALIVE) {
        p->state = rules[type].next;
    }
    switch (type) {
    case LAYOUT:
        return get_layout(p, r, errp);
    case END:
        return r.left == 8
            ? p->ops->end(p->opaque, get_be64(r.at), errp)
            : broken(errp, "an END that is cut off");
    case RANKS:
    case SUPERSEDED:
        return get_pages(p, type, r, errp);
    case FAILED:
        return get_failed(p, r, errp);
    default:
        return get_signal(p, type, errp);
    }
}

bool peer_parser_feed(PeerParser *p, const void *data, size_t size,
                      GError **errp)
{
    const uint8_t *at = data;

    for (;;) {
        size_t n = MIN(p->want - p->message->len, size);

        g_byte_array_append(p->message, at, n);
        at += n;
        size -= n;
        if (p->message->len < p->want) {
            return true;
        }
        if (p->want == HEADER_SIZE && !check_header(p, errp)) {
            return false;
        }
        if (p->message->len == p->want) {
            if (!message(p, errp)) {
                return false;
            }
            g_byte_array_set_size(p->message, 0);
            p->want = HEADER_SIZE;
        }
    }
}
