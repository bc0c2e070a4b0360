/*
 * Where a session listens
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SESSION_LISTEN_H
#define MEMSERVER_SESSION_LISTEN_H

#include "session.h"

/* As the configuration says; it has an address then. */
bool session_listen(Session *s, GError **errp);

/* It may have been called before. */
void session_stop_listening(Session *s);

#endif
