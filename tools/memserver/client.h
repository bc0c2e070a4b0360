/*
 * tlm-memserver as a client of one that runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CLIENT_H
#define MEMSERVER_CLIENT_H

#include "tls.h"

/*
 * Sends @command with arguments NAME=VALUE, prints what is answered.  Returns
 * the exit status.
 */
int client_call(const char *address, const TlsCreds *tls, const char *command,
                char **arguments);

/*
 * For programs: sends each line of the standard input as it is, and writes the
 * answer, a line too, to the standard output.
 */
int client_pipe(const char *address, const TlsCreds *tls);

#endif
