/*
 * The thread that watches over a session
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SESSION_WATCH_H
#define MEMSERVER_SESSION_WATCH_H

#include "session.h"

/* Listens, and starts the thread, which ends with the session. */
bool session_watch(Session *s, GError **errp);

/* Waits for the end of the thread; for one caller. */
void session_watch_join(Session *s);

#endif
