/*
 * Parser of the main stream: its header, and QEMU's configuration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "be.h"
#include "error.h"
#include "stream-internal.h"
#include "text.h"

#define FILE_VERSION 3

/* QEMU's own machine names have some 20 characters. */
#define MACHINE_NAME_MAX 128

/* Subsections of the configuration that are known: 16 and 4 bytes. */
#define SUBSECTION_MAX 64

bool stream_file_header(Stream *s, GError **errp)
{
    uint32_t length = get_be32(s->buffer + 9);

    if (get_be32(s->buffer) != STREAM_MAGIC) {
        return ms_fail(errp, "this is no migration of QEMU (magic %08x)",
                       get_be32(s->buffer));
    }
    if (get_be32(s->buffer + 4) != FILE_VERSION) {
        return ms_fail(errp, "version %u of the migration stream is not known",
                       get_be32(s->buffer + 4));
    }
    if (s->buffer[8] != SECTION_CONFIGURATION) {
        return ms_fail(errp, "the stream has no configuration: machine types "
                       "older than 2.4 are not supported");
    }
    if (length == 0 || length > MACHINE_NAME_MAX) {
        return ms_fail(errp, "the machine's name has %u characters", length);
    }
    stream_await(s, AWAIT_MACHINE, length);
    return true;
}

bool stream_machine(Stream *s, GError **errp)
{
    if (!text_is_printable(s->buffer, s->want)) {
        return ms_fail(errp, "the machine's name is not printable");
    }
    s->layout->machine = g_strndup((char *)s->buffer, s->want);
    s->in_configuration = true;
    stream_await(s, AWAIT_SECTION, 1);
    return true;
}

bool stream_subsection_length(Stream *s, GError **errp)
{
    if (!s->buffer[0] || s->buffer[0] > SUBSECTION_MAX) {
        return ms_fail(errp, "the name of a subsection has %u characters",
                       s->buffer[0]);
    }
    stream_await(s, AWAIT_SUBSECTION_NAME, s->buffer[0] + 4);
    return true;
}

bool stream_subsection_name(Stream *s, GError **errp)
{
    static const struct {
        const char *name;
        size_t size;
    } known[] = {
        { "configuration/uuid", 16 },
        { "configuration/target-page-bits", 4 },
    };

    /* The name, and a version. */
    memcpy(s->subsection, s->buffer, s->want - 4);
    s->subsection[s->want - 4] = '\0';
    if (!text_is_printable(s->buffer, s->want - 4)) {
        return ms_fail(errp, "the configuration has a subsection without a "
                       "printable name");
    }
    if (!strcmp(s->subsection, "configuration/capabilities")) {
        return ms_fail(errp, "the source has capability mapped-ram or "
                       "x-ignore-shared on: turn it off");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        if (!strcmp(s->subsection, known[i].name)) {
            put_u8(s->layout->subsections, SECTION_SUBSECTION);
            put_u8(s->layout->subsections, s->want - 4);
            g_byte_array_append(s->layout->subsections, s->buffer, s->want);
            stream_await(s, AWAIT_SUBSECTION_DATA, known[i].size);
            return true;
        }
    }
    return ms_fail(errp, "subsection %s of the configuration is not known",
                   s->subsection);
}

bool stream_subsection_data(Stream *s, GError **errp)
{
    if (s->want == 4 && get_be32(s->buffer) != PAGE_BITS) {
        return ms_fail(errp, "the machine's pages have %u bits, not %u",
                       get_be32(s->buffer), PAGE_BITS);
    }
    if (s->layout->subsections->len > 512) {
        return ms_fail(errp, "the configuration repeats its subsections");
    }
    g_byte_array_append(s->layout->subsections, s->buffer, s->want);
    stream_await(s, AWAIT_SECTION, 1);
    return true;
}
