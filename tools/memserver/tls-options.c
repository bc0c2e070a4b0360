/*
 * The options of a program that connects with TLS
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "tls-options.h"

static char *kind, *dir, *user = (char *)"qemu";

const GOptionEntry tls_options[] = {
    { "tls", 0, 0, G_OPTION_ARG_STRING, &kind,
      "As a client: kind of TLS credentials, x509 or psk", "KIND" },
    { "tls-dir", 0, 0, G_OPTION_ARG_FILENAME, &dir,
      "As a client: their directory", "DIR" },
    { "tls-user", 0, 0, G_OPTION_ARG_STRING, &user,
      "As a client: name in keys.psk (default: qemu)", "NAME" },
    { NULL },
};

bool tls_options_creds(TlsCreds **creds, GError **errp)
{
    *creds = kind ? tls_client_creds(kind, dir ? dir : ".", user, errp) : NULL;
    return !kind || *creds;
}
