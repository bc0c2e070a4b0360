/*
 * TLM: vCPU over-commit: kinds of errors, and several errors in one text
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "error.h"

GQuark tlm_oc_error_quark(void)
{
    return g_quark_from_static_string("tlm-oc-error-quark");
}

void tlm_oc_add_message(GString *text, const char *prefix,
                        const char *message)
{
    g_string_append_printf(text, "%s%s%s%s", text->len ? "; " : "",
                           prefix ?: "", prefix ? ": " : "", message);
}
