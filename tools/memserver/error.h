/*
 * Errors of the memory server
 *
 * All functions that can fail take a GError ** and return false or NULL.  The
 * message is for the operator: it says what was tried, and with which value.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_ERROR_H
#define MEMSERVER_ERROR_H

#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>

#define MS_ERROR ms_error_quark()

GQuark ms_error_quark(void);

/* Sets *errp.  Returns false, for its caller to return. */
bool ms_fail(GError **errp, const char *format, ...) G_GNUC_PRINTF(2, 3);

#endif
