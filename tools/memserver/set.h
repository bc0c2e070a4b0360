/*
 * A session that receives one part of a set: its links to the other servers
 *
 * Part 0, the head, hears from each other part when each page has come, and
 * tells it which of them others have in a newer version (peer-proto.h).  A
 * part is stored before the head commits; then it hears that it is to commit,
 * too.  A part that has been stored and then loses the head cannot know: it
 * is kept, with the identity of the head's store.  That one has part 0 if and
 * only if the set was committed; "outcome" asks it later.
 *
 * Order of locks: set's telling, the session's lock; merging is within none.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SET_H
#define MEMSERVER_SET_H

#include "merge.h"
#include "peer-proto.h"
#include "ranks.h"
#include "session-internal.h"

/* Another server, as the head knows it; with the session's lock */
typedef struct Peer {
    Conn *conn;                         /* NULL: has not connected */
    bool ranks_complete, stored;
    char *error;
    PageCursor cursor;                  /* of its ranks; its thread's */
} Peer;

typedef enum Verdict {
    VERDICT_NONE,
    VERDICT_COMMIT,
    VERDICT_FAILED,
    VERDICT_LOST,                       /* the head is not there any more */
} Verdict;

struct Set {
    char *id, *head, *head_id;
    char *parent;                       /* the set; NULL: no increment */
    unsigned part, parts;
    Layout *layout;                     /* once it is known, as is: */
    Ranks *ranks;
    GMutex telling;                     /* who writes to another server */

    /* The head's */
    GByteArray *told;                   /* to all parts; with telling */
    Peer peers[PARTS_MAX];              /* [part] */
    bool has_end, merged;               /* with the session's lock */
    GMutex merging;
    Merge *merge;

    /* Those of a part; with the session's lock */
    GThread *reader, *worker;
    Conn *conn;
    PageCursor cursor;                  /* of superseded pages; the reader's */
    uint64_t syncs;
    bool at_end, ranks_sent, dropped, stored;
    Verdict verdict;
    char *why;                          /* VERDICT_FAILED, VERDICT_LOST */
};

Set *set_new(const SessionWish *w);
void set_free(Set *s);

/*
 * With the session's lock: how many servers of the set have connected with
 * this one, and whether all have that are to.
 */
unsigned set_peers(const Session *s);
bool set_is_connected(const Session *s);

/* The session's watcher: it begins, goes on, and has ended. */
void set_start(Session *s);
void set_say_alive(Session *s);
void set_end(Session *s);

/* The head's main stream, in this order: the layout is known; RAM has ended */
bool set_head_layout(Session *s, const Layout *l, GError **errp);
void set_head_end(Session *s, uint64_t syncs);
/* All channels are complete; drops what other parts have. */
bool set_head_merge(Session *s, GError **errp);
bool set_head_await_stored(Session *s, GError **errp);
void set_head_committed(Session *s);

/*
 * What RAM has ended with: pages that have not come are as in the parent, if
 * the source has sent an increment.
 */
void set_inherit(Session *s);

/* The threads of a part: what the head says; what is done */
void *set_part_reader(void *session);
void *set_part_worker(void *session);

/*
 * Reads what the other server says until the connection is over; *errp says
 * why, @closed if it was closed there.  Takes @parser over.
 */
void set_hear(Conn *c, PeerParser *parser, const char *closed, GError **errp);

/* Writes a message to one server, whose turn it is: telling is held. */
bool set_tell(Conn *c, const GByteArray *message, GError **errp);

#endif
