/*
 * A checkpoint that is announced, being received, and how it ended
 *
 *   announced -> receiving -> storing -> done
 *            \------------\----------\-> failed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SESSION_H
#define MEMSERVER_SESSION_H

#include "server.h"

typedef enum SessionState {
    SESSION_ANNOUNCED,
    SESSION_RECEIVING,
    SESSION_STORING,
    SESSION_DONE,
    SESSION_FAILED,
    SESSION__MAX,
} SessionState;

extern const char *const session_states[SESSION__MAX];

typedef struct SessionWish {
    const char *vm, *name;
    const char *parent;                 /* NULL: a full one */
    uint64_t ram;                       /* bytes, at most */
    unsigned channels;                  /* of the source */
    Level level;
    const char *set;                    /* NULL: a whole checkpoint */
    unsigned part, parts;
    const char *head;                   /* data address of part 0 */
    const char *head_id;                /* its store; or NULL */
    unsigned redundancy;                /* parities of the set; 0: none */
    Claim *claim;                       /* of a tentative one; or NULL */
    bool return_path;                   /* the source has it */
    bool hold;                          /* it must not stop its guest yet */
    bool confirm;                       /* session_confirm() will come */
    bool keep_all;                      /* no older one is to go for it */
    const char *source;                 /* JSON: see manifest.h; or NULL */
    const char *const *senders;         /* who else may send it; or NULL */
} SessionWish;

/* A reference for the caller. */
Session *session_announce(Server *server, const char *who,
                          const SessionWish *wish, GError **errp);

/* One that @who has announced, or any, for an administrator. */
Session *session_find(Server *server, const char *who, uint64_t id,
                      GError **errp);

Session *session_ref(Session *s);
void session_unref(Session *s);

/* Whether a part of @set is being received. */
bool session_of_set_goes_on(Server *server, const char *set);

/* Lets the source stop its guest (switchover-ack). */
void session_release(Session *s);

/*
 * With a parent, or if it was wished: whether the source has sent an increment,
 * or all; and, unless NULL, what there is to be known of the source now.
 */
bool session_confirm(Session *s, bool incremental, const char *source,
                     GError **errp);

void session_cancel(Session *s);

typedef struct SessionView {
    uint64_t id;
    char *address;                      /* what the source migrates to */
    SessionState state;
    char *error;
    uint64_t bytes, pages;              /* received */
    bool held, asks;                    /* waits for release, for confirm */
    char *vm, *name;
    const char *set;                    /* NULL: whole; as long as s */
    unsigned part, parts;
    unsigned peers;                     /* other servers that are connected */
} SessionView;

void session_view(Session *s, SessionView *v);
void session_view_clear(SessionView *v);

/* Waits until the session has ended, at most so many ms; whether it has. */
bool session_wait(Session *s, uint64_t ms);

/* At the end of the server. */
void session_cancel_all(Server *server);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Session, session_unref)

#endif
