/*
 * The links of a session: what has connected to it
 *
 * The watcher owns them, and calls these.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SESSION_LINKS_H
#define MEMSERVER_SESSION_LINKS_H

#include "session.h"

/* Takes one who waits; a thread finds out what it is. */
void session_accept(Session *s);

/* Frees links whose threads have ended; all: waits for them. */
void session_reap(Session *s, bool all);

/*
 * The source closes its connections when it has the last answer, and a server
 * of the set when it has committed.  If this server did it first, they might
 * take that for an error.  So it waits for them, and then breaks what is left.
 */
void session_linger(Session *s);

#endif
