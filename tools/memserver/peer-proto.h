/*
 * What the servers of a set say to each other
 *
 * A set is a checkpoint in parts, each at another server.  The server of a
 * part connects to that of part 0, the head, and introduces itself; then both
 * send messages: type, length, payload.
 *
 *   part: HELLO          head: LAYOUT          of the machine's RAM
 *                        head: END             how many SYNCs have come
 *   part: RANKS ... END                        when which page has come
 *                        head: SUPERSEDED ... END   pages that others have
 *   part: STORED                               it has its level
 *                        head: COMMIT
 *
 * ALIVE may come at any time, and FAILED with a text, which ends it.  The
 * parser does no I/O, and allocates nothing before a length was checked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_PEER_PROTO_H
#define MEMSERVER_PEER_PROTO_H

#include "layout.h"

#define PEER_MAGIC 0x544c4d50           /* "TLMP": the first four bytes */
#define PEER_SET_SIZE 36                /* a UUID as text */
#define PEER_START_SIZE 8
#define PEER_HELLO_SIZE (24 + 2 * PEER_SET_SIZE)

/* Of a set; each server costs the head memory for each page. */
#define PARTS_MAX 16

/* Whether these can be part @part of @parts, two or more, of set @set. */
bool part_is_possible(const char *set, uint64_t part, uint64_t parts);

/* All that both were announced with, and that must be the same. */
typedef struct PeerHello {
    char set[PEER_SET_SIZE + 1];
    char parent[PEER_SET_SIZE + 1];     /* a set, too; "": no increment */
    unsigned part, parts, channels, level;
} PeerHello;

/* @h: behind texts there are zeros. */
void peer_put_hello(GByteArray *to, const PeerHello *h);
/* Of its first PEER_START_SIZE bytes: others may follow in other versions. */
bool peer_check_start(const uint8_t *from, GError **errp);
/* @from: PEER_HELLO_SIZE bytes, whose start was checked. */
bool peer_get_hello(const uint8_t *from, PeerHello *h, GError **errp);

/* Pages that follow each other and came in the same epoch. */
typedef struct PeerRun {
    uint32_t count, rank;
} PeerRun;

/* In one message, at most */
#define PEER_MAX_RUNS 8000
#define PEER_MAX_WORDS 8000

typedef enum PeerSignal {
    PEER_RANKS_END,
    PEER_SUPERSEDED_END,
    PEER_STORED,
    PEER_COMMIT,
    PEER_ALIVE,
} PeerSignal;

void peer_put_layout(GByteArray *to, const Layout *l);
void peer_put_end(GByteArray *to, uint64_t syncs);
void peer_put_ranks(GByteArray *to, unsigned block, uint64_t first,
                    const PeerRun *runs, unsigned count);
/* Bit i of the words: page @first + i is superseded.  @first: of 64 */
void peer_put_superseded(GByteArray *to, unsigned block, uint64_t first,
                         const uint64_t *words, unsigned count);
void peer_put_signal(GByteArray *to, PeerSignal signal);
void peer_put_failed(GByteArray *to, const char *text);

/* Each is called in the order above; ALIVE is not told. */
typedef struct PeerOps {
    /* From the head; of the layout all is checked, but not its size. */
    bool (*layout)(void *opaque, const Layout *l, GError **errp);
    bool (*end)(void *opaque, uint64_t syncs, GError **errp);
    bool (*superseded)(void *opaque, unsigned block, uint64_t first,
                       const uint64_t *words, unsigned count, GError **errp);
    /* From a part; whether these pages are there is not checked. */
    bool (*ranks)(void *opaque, unsigned block, uint64_t first,
                  const PeerRun *runs, unsigned count, GError **errp);
    bool (*step)(void *opaque, PeerSignal signal, GError **errp);
    /* Printable ASCII */
    bool (*failed)(void *opaque, const char *text, GError **errp);
} PeerOps;

typedef struct PeerParser PeerParser;

/* What a part says behind HELLO, or what the head says (@from_head). */
PeerParser *peer_parser_new(bool from_head, const PeerOps *ops, void *opaque);
void peer_parser_free(PeerParser *p);

/* Returns false on an error, which is final. */
bool peer_parser_feed(PeerParser *p, const void *data, size_t size,
                      GError **errp);

#endif
