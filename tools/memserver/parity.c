/*
 * Parity of a set: building it, and making a part of it again
 *
 * Both read pieces page by page, all at once: page number n of each.  A part
 * that has fewer pages than others ends with zero pages, which nobody sends.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <isa-l/crc64.h>
#include <string.h>

#include "error.h"
#include "image-store.h"
#include "parity.h"

#define PARITY_BLOCK "tlm-parity"
#define TABLE_BLOCK "tlm-parity-table"

/* How often it is asked whether the client is there: each 256 KiB */
#define LOOK_PAGES 64

Parity *parity_alloc(void)
{
    Parity *p = g_new0(Parity, 1);

    g_atomic_ref_count_init(&p->refs);
    return p;
}

Parity *parity_ref(Parity *p)
{
    if (p) {
        g_atomic_ref_count_inc(&p->refs);
    }
    return p;
}

void parity_unref(Parity *p)
{
    if (!p || !g_atomic_ref_count_dec(&p->refs)) {
        return;
    }
    for (unsigned i = 0; i < p->data; i++) {
        page_map_free(p->parts[i].map);
        g_free(p->parts[i].sums);
        g_free(p->from[i]);
    }
    if (p->state) {
        g_byte_array_unref(p->state);
    }
    g_free(p->part_name);
    g_free(p);
}

char *parity_name(const char *name, unsigned index)
{
    return g_strdup_printf("%s.parity%u", name, index);
}

static uint64_t sum_of(const uint8_t *page)
{
    return crc64_ecma_norm(0, page, PAGE_SIZE);
}

/* Pieces that are read in step */
typedef struct Readers {
    unsigned count;
    Piece *pieces[ERASURE_MAX_DATA];
    unsigned numbers[ERASURE_MAX_DATA];
    uint8_t *pages[ERASURE_MAX_DATA];
} Readers;

static void readers_free(Readers *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        piece_free(r->pieces[i]);
        g_free(r->pages[i]);
    }
    g_free(r);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Readers, readers_free)

static bool readers_add(Readers *r, const ParityWish *w, unsigned number,
                        uint64_t max_ram, GError **errp)
{
    g_autofree char *own = number < w->data
        ? NULL : parity_name(w->name, number - w->data);
    PieceWish wish = {
        .address = w->from[number], .vm = w->vm, .name = own ?: w->name,
        .set = w->set, .number = number, .tls = w->tls,
        .patience = w->patience, .max_ram = max_ram,
    };
    Piece *p = piece_open(&wish, errp);

    if (!p) {
        return false;
    }
    r->numbers[r->count] = number;
    r->pages[r->count] = g_malloc(PAGE_SIZE);
    r->pieces[r->count++] = p;
    return true;
}

/* Page number @at of piece @i: zero behind its end. */
static bool readers_next(Readers *r, unsigned i, uint64_t at, GError **errp)
{
    if (at >= piece_map(r->pieces[i])->pages) {
        memset(r->pages[i], 0, PAGE_SIZE);
        return true;
    }
    return piece_next(r->pieces[i], r->pages[i], errp);
}

/* A checkpoint whose pages are written in order, in one thread */
typedef struct Maker {
    StoreTicket *ticket;
    Generation *generation;
    SlabCursor cursor;
    MultifdPacket packet;
} Maker;

static bool maker_open(Maker *m, const ParityWish *w, const char *name,
                       const Layout *l, GError **errp)
{
    m->ticket = store_begin(w->store, w->who, w->vm, name, NULL, w->level,
                            errp);
    m->generation = m->ticket
        ? generation_new(l, m->ticket->slab, NULL, errp) : NULL;
    m->packet.normal = 1;
    return m->generation;
}

static void *maker_page(Maker *m, unsigned block, uint64_t page, GError **errp)
{
    void *where[MULTIFD_PAGES];

    m->packet.offset[0] = page << PAGE_BITS;
    return generation_place(m->generation, &m->cursor, block, &m->packet,
                            where, errp) ? where[0] : NULL;
}

/* A reference for the caller. */
static Checkpoint *maker_seal(Maker *m, const ParityWish *w, unsigned number)
{
    const Layout *l = generation_layout(m->generation);
    Checkpoint *c = checkpoint_new(m->ticket->vm, m->ticket->name);

    slab_close(m->ticket->slab, &m->cursor);
    generation_seal(m->generation, false);
    c->generation = generation_ref(m->generation);
    c->state = g_byte_array_new();
    c->machine = g_strdup(l->machine);
    c->ram = l->total;
    c->set = g_strdup(w->set);
    c->part = number;
    c->parts = w->data;
    c->redundancy = w->parity;
    c->claim = claim_ref(w->claim);
    return c;
}

/* Nobody waits for it any more: what has been made is for nothing. */
static bool is_wanted(const ParityWish *w, uint64_t at, GError **errp)
{
    count(&w->counters->parity_pages, 1);
    return at % LOOK_PAGES || !w->client || !conn_is_over(w->client) ||
           ms_fail(errp, "the client has gone");
}

/* Takes @c over, and returns it; NULL: an error. */
static Checkpoint *maker_store(Maker *m, Checkpoint *c, GError **errp)
{
    if (store_write(m->ticket, c, errp) && store_sign(m->ticket, c, errp)) {
        store_commit(m->ticket, c);
        return c;
    }
    store_discard(m->ticket, c);
    checkpoint_unref(c);
    return NULL;
}

static void maker_close(Maker *m)
{
    if (m->generation) {
        slab_close(m->ticket->slab, &m->cursor);
    }
    generation_unref(m->generation);
    store_end(m->ticket);
}

/* Building */

static bool open_parts(Readers *r, const ParityWish *w, GError **errp)
{
    for (unsigned i = 0; i < w->data; i++) {
        if (!readers_add(r, w, i, w->max_ram, errp)) {
            return false;
        }
        if (!layout_same_blocks(piece_map(r->pieces[0])->layout,
                                piece_map(r->pieces[i])->layout)) {
            return ms_fail(errp, "parts 0 and %u are of different machines",
                           i);
        }
    }
    return piece_state(r->pieces[0])->len ||
           ms_fail(errp, "part 0 has no device state");
}

static PageMap *map_copy(const PageMap *from)
{
    PageMap *m = page_map_new(from->layout);
    PageMapCursor at = { 0 };

    while (page_map_next(from, &at)) {
        page_map_add(m, at.block, at.page - 1);
    }
    return m;
}

static Parity *parity_new(const ParityWish *w, const Readers *r)
{
    const GByteArray *state = piece_state(r->pieces[0]);
    Parity *p = parity_alloc();

    p->data = w->data;
    p->parity = w->parity;
    p->index = w->index;
    p->part_name = g_strdup(w->name);
    p->state = g_byte_array_new();
    g_byte_array_append(p->state, state->data, state->len);
    for (unsigned i = 0; i < w->data; i++) {
        p->from[i] = g_strdup(w->from[i]);
        p->parts[i].map = map_copy(piece_map(r->pieces[i]));
        p->parts[i].sums = g_new0(uint64_t, p->parts[i].map->pages + 1);
    }
    return p;
}

/* As many pages as the largest part has, and for the table, if any. */
static Layout *parity_layout(const Readers *r, const GByteArray *table)
{
    Layout *l = layout_copy(piece_map(r->pieces[0])->layout);
    LayoutBlock own = { PARITY_BLOCK }, more = { TABLE_BLOCK };
    uint64_t pages = 1;                 /* no block is empty */

    for (unsigned i = 0; i < r->count; i++) {
        pages = MAX(pages, piece_map(r->pieces[i])->pages);
    }
    own.length = l->total = pages * PAGE_SIZE;
    g_array_set_size(l->blocks, 0);
    g_array_append_val(l->blocks, own);
    if (table) {
        more.length = (table->len + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
        l->total += more.length;
        g_array_append_val(l->blocks, more);
    }
    return l;
}

static bool build(Maker *m, const ParityWish *w, Readers *r, Parity *p,
                  GError **errp)
{
    uint64_t pages = layout_pages(generation_layout(m->generation), 0);
    Recipe recipe;

    erasure_parity(&recipe, p->data, p->parity, p->index);
    for (uint64_t at = 0; at < pages; at++) {
        void *page = maker_page(m, 0, at, errp);

        for (unsigned i = 0; page && i < p->data; i++) {
            if (!readers_next(r, i, at, errp)) {
                return false;
            }
            if (at < p->parts[i].map->pages) {
                p->parts[i].sums[at] = sum_of(r->pages[i]);
            }
        }
        if (!page || !is_wanted(w, at, errp)) {
            return false;
        }
        erasure_make(&recipe, r->pages, page);
    }
    return true;
}

/* Behind the pages: what is known of the parts, when all of it is. */
static bool build_table(Maker *m, const Parity *p, GError **errp)
{
    g_autoptr(GByteArray) table = parity_table(p);

    for (uint64_t at = 0; at < table->len; at += PAGE_SIZE) {
        uint8_t *page = maker_page(m, 1, at / PAGE_SIZE, errp);
        size_t n = MIN(PAGE_SIZE, table->len - at);

        if (!page) {
            return false;
        }
        memcpy(page, table->data + at, n);
        memset(page + n, 0, PAGE_SIZE - n);
    }
    return true;
}

Parity *parity_from_image(const MemImage *image, GError **errp)
{
    const Layout *l = mem_image_layout(image);
    uint64_t pages = layout_num_blocks(l) == 2 ? layout_pages(l, 1) : 0;
    g_autofree uint8_t *data = g_malloc0(pages * PAGE_SIZE);

    for (uint64_t i = 0; i < pages; i++) {
        const void *page = mem_image_page(image, 1, i);

        if (page) {
            memcpy(data + i * PAGE_SIZE, page, PAGE_SIZE);
        }
    }
    return parity_from_table(data, pages * PAGE_SIZE, errp);
}

Checkpoint *parity_build(const ParityWish *w, GError **errp)
{
    g_autoptr(GByteArray) table = NULL;
    g_autoptr(Readers) r = g_new0(Readers, 1);
    g_autofree char *name = parity_name(w->name, w->index);
    g_autoptr(Layout) layout = NULL;
    Checkpoint *c = NULL;
    Parity *p;
    Maker m = { 0 };

    if (!open_parts(r, w, errp)) {
        return NULL;
    }
    p = parity_new(w, r);
    table = w->level == LEVEL_DURABLE ? parity_table(p) : NULL;
    layout = parity_layout(r, table);
    if (maker_open(&m, w, name, layout, errp) && build(&m, w, r, p, errp) &&
        (!table || build_table(&m, p, errp))) {
        c = maker_seal(&m, w, w->data + w->index);
        c->source = g_strdup(w->source);
        c->parity = parity_ref(p);
        c = maker_store(&m, c, errp);
    }
    maker_close(&m);
    parity_unref(p);
    return c;
}

/* Making a part again */

/* This server's parity first; as few others as do. */
static bool open_pieces(Readers *r, const ParityWish *w, const Parity *p,
                        unsigned lost, const Layout *parity, GError **errp)
{
    unsigned own = p->data + p->index;
    g_autoptr(GString) failures = g_string_new(NULL);

    for (unsigned i = 0; i < p->data + p->parity && r->count + 1 < p->data;
         i++) {
        g_autoptr(GError) error = NULL;
        uint64_t max = i < p->data ? p->parts[0].map->layout->total
                                   : parity->total;

        if (i == lost || i == own || !w->from[i]) {
            continue;
        }
        if (!readers_add(r, w, i, max, &error)) {
            g_string_append_printf(failures, "; %s", error->message);
        }
    }
    return r->count + 1 == p->data ||
           ms_fail(errp, "part %u of %u of '%s' cannot be made again: %u "
                   "pieces are needed, %u are there%s", lost, p->data, w->name,
                   p->data, r->count + 1, failures->str);
}

static bool same_map(const PageMap *a, const PageMap *b)
{
    if (a->pages != b->pages || !layout_same_blocks(a->layout, b->layout)) {
        return false;
    }
    for (unsigned i = 0; i < layout_num_blocks(a->layout); i++) {
        if (memcmp(a->bits[i], b->bits[i],
                   page_map_words(a->layout, i) * 8)) {
            return false;
        }
    }
    return true;
}

/* They have the pages that they had when parity was made.  One has all. */
static bool pieces_fit(const Readers *r, const Parity *p, const Layout *parity,
                       GError **errp)
{
    for (unsigned i = 0; i < r->count; i++) {
        const PageMap *map = piece_map(r->pieces[i]);
        unsigned n = r->numbers[i];

        if (n < p->data ? !same_map(map, p->parts[n].map)
                        : !layout_same_blocks(map->layout, parity) ||
                          map->pages != parity->total / PAGE_SIZE) {
            return ms_fail(errp, "piece %u of the set is not the one that "
                           "parity was made with", n);
        }
    }
    return true;
}

/* A part that is not as it was gets its bit in *damaged. */
static bool read_stripe(Readers *r, const Parity *p, uint64_t at,
                        uint32_t *damaged, GError **errp)
{
    for (unsigned i = 0; i < r->count; i++) {
        unsigned n = r->numbers[i];

        if (!readers_next(r, i, at, errp)) {
            return false;
        }
        if (n < p->data && at < p->parts[n].map->pages &&
            sum_of(r->pages[i]) != p->parts[n].sums[at]) {
            *damaged |= 1u << n;
            return ms_fail(errp, "part %u at its server is damaged: page "
                           "number %" PRIu64 " of it has another checksum", n,
                           at);
        }
    }
    return true;
}

static bool repair(Maker *m, const ParityWish *w, Readers *r,
                   const Parity *p, const MemImage *own, unsigned lost,
                   uint32_t *damaged, GError **errp)
{
    static const uint8_t zero[PAGE_SIZE];
    const PartTable *t = &p->parts[lost];
    uint8_t *from[ERASURE_MAX_DATA];
    unsigned have[ERASURE_MAX_DATA];
    PageMapCursor to = { 0 };
    Recipe recipe;

    memcpy(have, r->numbers, sizeof(have));
    memcpy(from, r->pages, sizeof(from));
    have[r->count] = p->data + p->index;
    if (!erasure_repair(&recipe, p->data, p->parity, have, lost)) {
        return ms_fail(errp, "these pieces do not make part %u", lost);
    }
    for (uint64_t at = 0; page_map_next(t->map, &to); at++) {
        uint8_t *page = maker_page(m, to.block, to.page - 1, errp);

        if (!page || !read_stripe(r, p, at, damaged, errp) ||
            !is_wanted(w, at, errp)) {
            return false;
        }
        from[r->count] = (uint8_t *)(mem_image_page(own, 0, at) ?: zero);
        erasure_make(&recipe, from, page);
        if (sum_of(page) != t->sums[at]) {
            return ms_fail(errp, "page %" PRIu64 " of part %u was made, but "
                           "has another checksum than the lost one: parity is "
                           "damaged", at, lost);
        }
    }
    return true;
}

static Checkpoint *own_parity(const ParityWish *w, GError **errp)
{
    g_autofree char *name = parity_name(w->name, w->index);
    g_autoptr(Checkpoint) c = store_get(w->store, w->who, w->vm, name, errp);

    if (c && (!c->parity || strcmp(c->set, w->set))) {
        ms_fail(errp, "'%s' is no parity of set %s", name, w->set);
        return NULL;
    }
    return g_steal_pointer(&c);
}

/* From the pieces that the wish has; see read_stripe(). */
static Checkpoint *rebuild_from(const ParityWish *w, Checkpoint *own,
                                unsigned lost, uint32_t *damaged,
                                GError **errp)
{
    g_autoptr(Readers) r = g_new0(Readers, 1);
    g_autoptr(MemImage) image = mem_image_from_store(w->store, own, errp);
    const Parity *p = own->parity;
    Checkpoint *c = NULL;
    Maker m = { 0 };

    if (!image ||
        !open_pieces(r, w, p, lost, mem_image_layout(image), errp) ||
        !pieces_fit(r, p, mem_image_layout(image), errp)) {
        return NULL;
    }
    if (maker_open(&m, w, w->name, p->parts[lost].map->layout, errp) &&
        repair(&m, w, r, p, image, lost, damaged, errp)) {
        c = maker_seal(&m, w, lost);
        if (!lost) {
            g_byte_array_append(c->state, p->state->data, p->state->len);
            c->source = g_strdup(own->source);
        }
        c = maker_store(&m, c, errp);
    }
    maker_close(&m);
    return c;
}

/* A part that is damaged is as good as lost. */
Checkpoint *parity_rebuild(const ParityWish *wish, unsigned lost,
                           uint32_t *damaged, GError **errp)
{
    g_autoptr(Checkpoint) own = own_parity(wish, errp);
    g_autoptr(GString) before = g_string_new(NULL);
    ParityWish w = *wish;
    Checkpoint *c;

    *damaged = 0;
    if (!own) {
        return NULL;
    }
    w.data = own->parity->data;
    w.parity = own->parity->parity;
    w.level = own->file.there ? LEVEL_DURABLE : LEVEL_MEMORY;
    if (lost >= w.data) {
        ms_fail(errp, "the set has parts 0 to %u, not %u", w.data - 1, lost);
        return NULL;
    }
    for (;;) {
        g_autoptr(GError) error = NULL;
        uint32_t more = 0;

        c = rebuild_from(&w, own, lost, &more, &error);
        if (c) {
            return c;
        }
        if (!more) {
            ms_fail(errp, "%s%s", error->message, before->str);
            return NULL;
        }
        *damaged |= more;
        w.from[__builtin_ctz(more)] = NULL;
        g_string_append_printf(before, "; %s", error->message);
    }
}

/* Comparing */

static bool compare_part(const ParityWish *w, const Parity *p, unsigned part,
                         uint64_t *wrong, GError **errp)
{
    g_autoptr(Readers) r = g_new0(Readers, 1);
    const PartTable *t = &p->parts[part];

    if (!readers_add(r, w, part, t->map->layout->total, errp) ||
        !pieces_fit(r, p, NULL, errp)) {
        return false;
    }
    *wrong = 0;
    for (uint64_t at = 0; at < t->map->pages; at++) {
        if (!readers_next(r, 0, at, errp)) {
            return false;
        }
        *wrong += sum_of(r->pages[0]) != t->sums[at];
    }
    return true;
}

bool parity_compare(const ParityWish *wish, uint64_t *wrong, GError **errp)
{
    g_autoptr(Checkpoint) own = own_parity(wish, errp);
    ParityWish w = *wish;
    bool ok = own;

    w.data = own ? own->parity->data : 0;
    for (unsigned i = 0; ok && i < w.data; i++) {
        ok = w.from[i]
            ? compare_part(&w, own->parity, i, &wrong[i], errp)
            : ms_fail(errp, "argument 'from': part %u is needed", i);
    }
    return ok;
}
