/*
 * Text of strangers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_TEXT_H
#define MEMSERVER_TEXT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Printable ASCII, and not empty */
static inline bool text_is_printable(const uint8_t *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!g_ascii_isprint(text[i])) {
            return false;
        }
    }
    return size > 0;
}

#endif
