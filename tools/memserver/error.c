/*
 * Errors of the memory server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "error.h"

GQuark ms_error_quark(void)
{
    return g_quark_from_static_string("tlm-memserver");
}

bool ms_fail(GError **errp, const char *format, ...)
{
    va_list args;

    if (errp) {
        va_start(args, format);
        *errp = g_error_new_valist(MS_ERROR, 0, format, args);
        va_end(args);
    }
    return false;
}
