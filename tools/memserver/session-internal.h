/*
 * What the files of a session share
 *
 * Calls go downwards: session-announce.c, session-watch.c, session-links.c,
 * receive-*.c, set-*.c, session.c.
 *
 * Threads: one accepts connections and watches over the session; each
 * connection has one, which is that of the main stream or of a channel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SESSION_INTERNAL_H
#define MEMSERVER_SESSION_INTERNAL_H

#include "conn.h"
#include "epoch.h"
#include "session.h"

typedef struct Set Set;

/* What has connected: the main stream and the channels. */
typedef struct Link {
    Session *session;
    Conn *conn;
    GThread *thread;
    bool introduced;                    /* speaks multifd */
    bool is_channel;                    /* and is one of those announced */
    bool is_peer;                       /* is a server of the set */
    bool over;                          /* the thread is about to end */
} Link;

struct Session {
    gatomicrefcount refs;
    uint64_t id;
    Server *server;
    char *who, *address, *socket_path;
    unsigned channels;                  /* of the source, in all */
    unsigned own_channels;              /* that come here */
    Level level;
    uint64_t max_ram;
    Set *set;                           /* set.h; NULL: a whole checkpoint */
    bool return_path;
    char *vm, *name;
    char **senders;                     /* or NULL */
    unsigned redundancy;
    Claim *claim;                       /* or NULL */
    Slab *slab;

    GMutex lock;                        /* all below */
    GCond changed;
    SessionState state;
    StoreTicket *ticket;                /* NULL: it has been given back */
    char *error;                        /* the first */
    bool held;                          /* no switchover-ack yet */
    bool asks, confirmed, incremental;  /* do not change once confirmed */
    char *source;                       /* does not change once confirmed */
    GPtrArray *links;                   /* Link; freed by the watcher */
    Link *main;                         /* the link with the main stream */
    bool main_over;
    unsigned channels_at_work;          /* links that are channels */
    bool has_channel[EPOCH_MAX_CHANNELS];
    unsigned num_channels;
    bool answers;                       /* the source has a return path */
    bool acked;
    Generation *generation;             /* once the layout is known */

    Epochs epochs;
    GMutex answering;                   /* one message at a time */
    uint64_t bytes, pages;              /* atomic */
    GThread *watcher;                   /* while there is one to join */
    int listener, wake;                 /* file descriptors, or -1 */
};

/* A session that nobody knows yet, without a ticket and a watcher. */
Session *session_new(Server *server, const char *who, const SessionWish *w);

/* With the lock held: it has, and the store has its ticket back. */
bool session_ended(const Session *s);

/* Ends the session; the first error is kept. */
void session_fail(Session *s, const GError *error);

/*
 * Waits for the channels of a session that has failed, and then lets go of
 * the virtual machine: the source may try again.
 */
void session_let_go(Session *s);

/* Whether it has failed; then *errp says why. */
bool session_failed(Session *s, GError **errp);

/* In the thread of a connection: first bytes have told what it is. */
bool session_claim_main(Session *s, Link *l, GError **errp);
bool session_claim_channel(Session *s, Link *l, unsigned id, GError **errp);

/* The number of channel @id among those that come here. */
unsigned session_channel_index(const Session *s, unsigned id);

/*
 * For what is to come; its layout is @l.  With a parent it begins with the
 * parent's pages.
 */
Generation *session_make_generation(Session *s, const Layout *l,
                                    GError **errp);

/* The layout is known; takes @g over. */
void session_set_generation(Session *s, Generation *g);

/*
 * With a parent, the client says whether it was an increment; with disks, what
 * they are since the pause.
 */
bool session_await_confirmed(Session *s, GError **errp);

/* From now on what has come is whole; false if the session has ended. */
bool session_start_storing(Session *s);

/* A checkpoint of what has been received; seals it. */
Checkpoint *session_checkpoint(Session *s, const GByteArray *state);

/*
 * Storing is over.  @ok: the ticket has been given back.  Else session_fail()
 * follows.
 */
void session_stored(Session *s, bool ok);

/* Waits for the layout; NULL: failed. */
Generation *session_generation(Session *s, GError **errp);

#endif
