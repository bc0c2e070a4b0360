/*
 * A piece of a set, as one server sends it to another
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "be.h"
#include "error.h"
#include "json.h"
#include "peer-proto.h"
#include "piece.h"

#define PIECE_MAGIC 0x544c4d51          /* "TLMQ" */
#define PIECE_VERSION 1

/* A layout has up to 1024 blocks with names of up to 255 bytes. */
#define LAYOUT_SIZE_MAX (512 << 10)
/* stream-state.c takes up to 16 MiB of description beside the devices. */
#define STATE_SIZE_MAX (256 << 20)
#define ANSWER_MAX 4096
#define PAGES_AT_ONCE 64

/* Which pages there are */

PageMap *page_map_new(const Layout *layout)
{
    PageMap *m = g_new0(PageMap, 1);

    m->layout = layout_copy(layout);
    m->bits = g_new0(uint64_t *, layout_num_blocks(layout));
    for (unsigned b = 0; b < layout_num_blocks(layout); b++) {
        m->bits[b] = g_new0(uint64_t, page_map_words(layout, b));
    }
    return m;
}

void page_map_free(PageMap *m)
{
    if (!m) {
        return;
    }
    for (unsigned b = 0; b < layout_num_blocks(m->layout); b++) {
        g_free(m->bits[b]);
    }
    g_free(m->bits);
    layout_free(m->layout);
    g_free(m);
}

void page_map_add(PageMap *m, unsigned block, uint64_t page)
{
    m->bits[block][page / 64] |= 1ull << page % 64;
    m->pages++;
}

bool page_map_next(const PageMap *m, PageMapCursor *at)
{
    for (; at->block < layout_num_blocks(m->layout);
         at->block++, at->page = 0) {
        uint64_t pages = layout_pages(m->layout, at->block);

        while (at->page < pages) {
            uint64_t word = m->bits[at->block][at->page / 64] >> at->page % 64;

            if (word) {
                at->page += __builtin_ctzll(word) + 1;
                return true;
            }
            at->page = (at->page / 64 + 1) * 64;
        }
    }
    return false;
}

bool page_map_take(PageMap *m, unsigned block, GError **errp)
{
    uint64_t pages = layout_pages(m->layout, block);
    uint64_t n = page_map_words(m->layout, block);
    uint64_t *bits = m->bits[block];

    for (uint64_t i = 0; i < n; i++) {
        bits[i] = GUINT64_FROM_BE(bits[i]);
        m->pages += __builtin_popcountll(bits[i]);
    }
    return pages % 64 == 0 || !(bits[n - 1] >> pages % 64) ||
           ms_fail(errp, "there are pages behind the end of block %s",
                   layout_block(m->layout, block)->name);
}

/* Sending */

void piece_put_front(GByteArray *to, const Layout *l, const void *state,
                     size_t size)
{
    g_autoptr(GByteArray) layout = g_byte_array_new();

    peer_put_layout(layout, l);
    put_be32(to, PIECE_MAGIC);
    put_be32(to, PIECE_VERSION);
    put_be32(to, layout->len);
    put_be32(to, size);
    g_byte_array_append(to, layout->data, layout->len);
    g_byte_array_append(to, state, size);
}

static void put_bits(GByteArray *to, const MemImage *image, unsigned block)
{
    uint64_t pages = layout_pages(mem_image_layout(image), block);

    for (uint64_t i = 0; i < pages; i += 64) {
        uint64_t word = 0;

        for (uint64_t j = i; j < MIN(i + 64, pages); j++) {
            word |= (uint64_t)!!mem_image_page(image, block, j) << (j - i);
        }
        put_be64(to, word);
    }
}

static bool send_block(Conn *c, const MemImage *image, unsigned block,
                       GError **errp)
{
    uint64_t pages = layout_pages(mem_image_layout(image), block);
    g_autofree uint8_t *buffer = g_malloc(PAGES_AT_ONCE * PAGE_SIZE);
    unsigned n = 0;

    for (uint64_t i = 0; i < pages; i++) {
        const void *page = mem_image_page(image, block, i);

        if (page) {
            memcpy(buffer + n++ * PAGE_SIZE, page, PAGE_SIZE);
        }
        if (n == PAGES_AT_ONCE || (n && i == pages - 1)) {
            if (!conn_write(c, buffer, n * PAGE_SIZE, errp)) {
                return false;
            }
            n = 0;
        }
    }
    return true;
}

bool piece_send(Conn *c, const MemImage *image, GError **errp)
{
    unsigned blocks = layout_num_blocks(mem_image_layout(image));
    g_autoptr(GByteArray) head = g_byte_array_new();
    size_t size;
    const void *state = mem_image_state(image, &size);
    bool ok;

    piece_put_front(head, mem_image_layout(image), state, size);
    for (unsigned b = 0; b < blocks; b++) {
        put_bits(head, image, b);
    }
    ok = conn_write(c, head->data, head->len, errp);
    for (unsigned b = 0; ok && b < blocks; b++) {
        ok = send_block(c, image, b, errp);
    }
    return ok;
}

/* Parsing */

uint64_t piece_head(const uint8_t *head, GError **errp)
{
    uint32_t layout = get_be32(head + 8), state = get_be32(head + 12);

    if (get_be32(head) != PIECE_MAGIC || get_be32(head + 4) != PIECE_VERSION) {
        ms_fail(errp, "what it sends is no piece of a set, or of another "
                "version");
        return 0;
    }
    if (!layout || layout > LAYOUT_SIZE_MAX || state > STATE_SIZE_MAX) {
        ms_fail(errp, "its layout of %u bytes, or its device state of %u, is "
                "too large", layout, state);
        return 0;
    }
    return (uint64_t)layout + state;
}

static bool keep_layout(void *opaque, const Layout *l, GError **errp)
{
    Layout **to = opaque;

    *to = layout_copy(l);
    return true;
}

bool piece_parse(const uint8_t *head, const uint8_t *rest, uint64_t max_ram,
                 Layout **layout, GByteArray **state, GError **errp)
{
    static const PeerOps ops = { .layout = keep_layout };
    uint32_t size = get_be32(head + 8);
    g_autoptr(Layout) l = NULL;
    PeerParser *parser;
    bool ok;

    /* Any other message than the layout is out of turn. */
    if (size < 2 || get_be16(rest) != 1) {
        return ms_fail(errp, "it sends no layout");
    }
    parser = peer_parser_new(true, &ops, &l);
    ok = peer_parser_feed(parser, rest, size, errp);
    peer_parser_free(parser);
    if (!ok) {
        return false;
    }
    if (!l || l->total > max_ram) {
        return ms_fail(errp, "its layout has more than %" PRIu64 " bytes of "
                       "RAM, or is not whole", max_ram);
    }
    *state = g_byte_array_new();
    g_byte_array_append(*state, rest + size, get_be32(head + 12));
    *layout = g_steal_pointer(&l);
    return true;
}

/* Receiving */

struct Piece {
    char *address;
    Conn *conn;
    PageMap *map;
    GByteArray *state;
    uint64_t left;                      /* pages */
};

void piece_free(Piece *p)
{
    if (!p) {
        return;
    }
    if (p->conn) {
        conn_free(p->conn);
    }
    page_map_free(p->map);
    if (p->state) {
        g_byte_array_unref(p->state);
    }
    g_free(p->address);
    g_free(p);
}

static char *compose(const PieceWish *w)
{
    struct json_object *request = json_object_new_object();
    struct json_object *arguments = json_object_new_object();
    char *text;

    json_set_string(arguments, "vm", w->vm);
    json_set_string(arguments, "name", w->name);
    json_set_string(arguments, "set", w->set);
    json_set_string(request, "execute", "piece");
    json_set(request, "arguments", arguments);
    text = g_strconcat(json_object_to_json_string_ext(
                           request, JSON_C_TO_STRING_PLAIN), "\n", NULL);
    json_object_put(request);
    return text;
}

/* A line; what follows is not read yet. */
static bool read_answer(Conn *c, char *line, GError **errp)
{
    for (unsigned i = 0; i < ANSWER_MAX - 1; i++) {
        if (!conn_read(c, line + i, 1, errp)) {
            return false;
        }
        if (line[i] == '\n') {
            line[i] = '\0';
            return true;
        }
    }
    return ms_fail(errp, "its answer is too long");
}

static bool check_answer(const PieceWish *w, const char *line, GError **errp)
{
    struct json_object *o = json_read_object(line, strlen(line), errp);
    const char *why;
    bool ok = o;

    if (ok && (why = json_get_string(o, "error.desc"))) {
        ok = ms_fail(errp, "%s", why);
    } else if (ok && (!json_get(o, "return.piece") ||
                      json_get_uint(o, "return.piece") != w->number)) {
        ok = ms_fail(errp, "it does not have piece %u of the set", w->number);
    }
    json_object_put(o);
    return ok;
}

static bool ask(Piece *p, const PieceWish *w, GError **errp)
{
    g_autofree char *request = compose(w);
    char line[ANSWER_MAX];

    return conn_write(p->conn, request, strlen(request), errp) &&
        read_answer(p->conn, line, errp) && check_answer(w, line, errp);
}

static bool read_front(Piece *p, const PieceWish *w, GError **errp)
{
    uint8_t head[PIECE_HEAD_SIZE];
    g_autofree uint8_t *rest = NULL;
    g_autoptr(Layout) layout = NULL;
    uint64_t size;

    if (!conn_read(p->conn, head, sizeof(head), errp)) {
        return false;
    }
    size = piece_head(head, errp);
    if (!size) {
        return false;
    }
    rest = g_malloc(size);
    if (!conn_read(p->conn, rest, size, errp) ||
        !piece_parse(head, rest, w->max_ram, &layout, &p->state, errp)) {
        return false;
    }
    p->map = page_map_new(layout);
    for (unsigned b = 0; b < layout_num_blocks(layout); b++) {
        if (!conn_read(p->conn, p->map->bits[b],
                       page_map_words(layout, b) * 8, errp) ||
            !page_map_take(p->map, b, errp)) {
            return false;
        }
    }
    p->left = p->map->pages;
    return true;
}

Piece *piece_open(const PieceWish *wish, GError **errp)
{
    g_autoptr(Piece) p = g_new0(Piece, 1);
    bool tls = wish->tls && g_str_has_prefix(wish->address, "tcp:");

    p->address = g_strdup(wish->address);
    p->conn = conn_open(wish->address, tls ? wish->tls : NULL, NULL, errp);
    if (!p->conn) {
        g_prefix_error(errp, "%s: ", wish->address);
        return NULL;
    }
    conn_impatient(p->conn, wish->patience);
    if (!ask(p, wish, errp) || !read_front(p, wish, errp)) {
        g_prefix_error(errp, "%s: ", wish->address);
        return NULL;
    }
    return g_steal_pointer(&p);
}

const PageMap *piece_map(const Piece *p)
{
    return p->map;
}

const GByteArray *piece_state(const Piece *p)
{
    return p->state;
}

bool piece_next(Piece *p, void *page, GError **errp)
{
    g_assert(p->left);
    p->left--;
    if (!conn_read(p->conn, page, PAGE_SIZE, errp)) {
        g_prefix_error(errp, "%s: ", p->address);
        return false;
    }
    return true;
}
