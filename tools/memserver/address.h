/*
 * Addresses: tcp:HOST:PORT, unix:PATH
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_ADDRESS_H
#define MEMSERVER_ADDRESS_H

#include <glib.h>
#include <stdbool.h>

/*
 * Listens.  Port 0: any one that is free.  @mode: of a Unix socket.  Returns a
 * file descriptor or -1; @real: the address as a client needs it.
 */
int address_listen(const char *address, unsigned mode, char **real,
                   GError **errp);

int address_connect(const char *address, GError **errp);

/* Can nobody on another host connect to it? */
bool address_is_local(const char *address);

/* The HOST of a TCP address, or NULL. */
char *address_host(const char *address);

#endif
