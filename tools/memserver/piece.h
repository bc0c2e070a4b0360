/*
 * A piece of a set, as one server sends it to another: a part or a parity
 *
 * The other server asks for it over a control connection, by "piece".  Behind
 * the answer come a head, the layout, the device state, which only the first
 * part has, a bit for each page of the layout, and the pages whose bit is set,
 * in the order of block and page.  All pieces of a set have this order: page
 * number n of a parity is made of page number n of each part.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_PIECE_H
#define MEMSERVER_PIECE_H

#include "conn.h"
#include "image.h"

/* Which pages there are: a bit for each page of each block */
typedef struct PageMap {
    Layout *layout;
    uint64_t **bits;                    /* [block] */
    uint64_t pages;                     /* bits that are set */
} PageMap;

/* Of the bits of a block */
static inline uint64_t page_map_words(const Layout *l, unsigned block)
{
    return (layout_pages(l, block) + 63) / 64;
}

/* Copies @layout; no bit is set. */
PageMap *page_map_new(const Layout *layout);
void page_map_free(PageMap *m);
void page_map_add(PageMap *m, unsigned block, uint64_t page);

/* Goes through the pages that are there, from { 0 } on. */
typedef struct PageMapCursor {
    unsigned block;
    uint64_t page;                      /* the next one to look at */
} PageMapCursor;

/* False: there is no other.  The page is number at->page - 1 of the block. */
bool page_map_next(const PageMap *m, PageMapCursor *at);

/* From big-endian words to those of the machine; counts them. */
bool page_map_take(PageMap *m, unsigned block, GError **errp);

/* Head, layout, device state; see piece_parse(). */
void piece_put_front(GByteArray *to, const Layout *layout, const void *state,
                     size_t size);

/* All of it; blocks. */
bool piece_send(Conn *c, const MemImage *image, GError **errp);

typedef struct PieceWish {
    const char *address;                /* control address of the server */
    const char *vm, *name, *set;
    unsigned number;                    /* of the piece */
    const TlsCreds *tls;                /* as a client; NULL: without */
    unsigned patience;                  /* s, for each read */
    uint64_t max_ram;                   /* bytes of all blocks */
} PieceWish;

typedef struct Piece Piece;

/* Asks for it, and reads all but the pages. */
Piece *piece_open(const PieceWish *wish, GError **errp);
void piece_free(Piece *p);

const PageMap *piece_map(const Piece *p);
const GByteArray *piece_state(const Piece *p);

/* The next page that is there; there must be one. */
bool piece_next(Piece *p, void *page, GError **errp);

/*
 * The head and what follows it up to the bits: how many bytes there are behind
 * the head, or 0 and an error; then the two of them.
 */
#define PIECE_HEAD_SIZE 16
uint64_t piece_head(const uint8_t *head, GError **errp);
bool piece_parse(const uint8_t *head, const uint8_t *rest, uint64_t max_ram,
                 Layout **layout, GByteArray **state, GError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Piece, piece_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PageMap, page_map_free)

#endif
