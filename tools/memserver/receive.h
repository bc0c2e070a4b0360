/*
 * Receiving what a source sends, in the thread of its connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_RECEIVE_H
#define MEMSERVER_RECEIVE_H

#include "session-internal.h"

/*
 * @first: @size bytes that have been read.  They return when the connection is
 * over.
 */
bool receive_main(Session *s, Conn *c, const uint8_t *first, size_t size,
                  GError **errp);
bool receive_channel(Session *s, Link *l, const uint8_t *first, size_t size,
                     GError **errp);
/* What connects as another server of the set. */
bool receive_peer(Session *s, Link *l, const uint8_t *first, size_t size,
                  GError **errp);

/* The source may stop its guest; if it is not held, and the link is there. */
bool receive_ack(Session *s, GError **errp);

#endif
