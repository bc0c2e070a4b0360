/*
 * The options of a program that connects with TLS
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_TLS_OPTIONS_H
#define MEMSERVER_TLS_OPTIONS_H

#include "tls.h"

/* --tls, --tls-dir and --tls-user; ends with a name of NULL */
extern const GOptionEntry tls_options[];

/* The credentials that they say; *creds is NULL without --tls. */
bool tls_options_creds(TlsCreds **creds, GError **errp);

#endif
