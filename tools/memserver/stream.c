/*
 * Parser of the main stream of a migration with multifd
 *
 * Each state wants a fixed number of bytes, which are collected in a buffer.
 * See QEMU's migration/savevm.c and ram.c for what is parsed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "be.h"
#include "error.h"
#include "stream-internal.h"

/* Commands that a pre-copy source sends */
#define CMD_OPEN_RETURN_PATH 1
#define CMD_PING 2
#define CMD_SWITCHOVER_START 11

static const char *const awaits[] = {
    [AWAIT_FILE_HEADER] = "the header of a migration",
    [AWAIT_MACHINE] = "the machine's name",
    [AWAIT_SECTION] = "a section",
    [AWAIT_SUBSECTION_LENGTH] = "a subsection of the configuration",
    [AWAIT_SUBSECTION_NAME] = "a subsection of the configuration",
    [AWAIT_SUBSECTION_DATA] = "a subsection of the configuration",
    [AWAIT_COMMAND] = "a command",
    [AWAIT_COMMAND_DATA] = "a command",
    [AWAIT_START_ID] = "the start of section \"ram\"",
    [AWAIT_START_NAME] = "the start of section \"ram\"",
    [AWAIT_SECTION_ID] = "a section of RAM",
    [AWAIT_WORD] = "a section of RAM",
    [AWAIT_BLOCK_NAME_LENGTH] = "the list of RAM blocks",
    [AWAIT_BLOCK_NAME] = "the list of RAM blocks",
    [AWAIT_BLOCK_LENGTH] = "the list of RAM blocks",
    [AWAIT_FOOTER] = "the end of a section",
    [DEVICE_STATE] = "the end of the device state",
    [COMPLETE] = "nothing more",
    [FAILED] = "nothing more, after an error",
};

void stream_await(Stream *s, StreamState state, size_t want)
{
    g_assert(want <= sizeof(s->buffer));
    s->state = state;
    s->want = want;
    s->have = 0;
}

Stream *stream_new(const StreamOps *ops, void *opaque, uint64_t max_ram,
                   uint64_t max_state)
{
    Stream *s = g_new0(Stream, 1);

    s->ops = ops;
    s->opaque = opaque;
    s->max_ram = max_ram;
    s->max_state = max_state;
    s->layout = layout_new();
    s->device_state = g_byte_array_new();
    stream_await(s, AWAIT_FILE_HEADER, 4 + 4 + 1 + 4);
    return s;
}

void stream_free(Stream *s)
{
    if (s) {
        layout_free(s->layout);
        g_byte_array_unref(s->device_state);
        g_free(s);
    }
}

bool stream_complete(const Stream *s)
{
    return s->state == COMPLETE;
}

const char *stream_awaits(const Stream *s)
{
    return awaits[s->state];
}

const GByteArray *stream_state(const Stream *s)
{
    return s->device_state;
}

/* Commands */

static bool command(Stream *s, GError **errp)
{
    uint16_t length = get_be16(s->buffer + 2), right;

    s->command = get_be16(s->buffer);
    switch (s->command) {
    case CMD_OPEN_RETURN_PATH:
    case CMD_SWITCHOVER_START:
        right = 0;
        break;
    case CMD_PING:
        right = 4;
        break;
    default:
        return ms_fail(errp, "command %u of the main stream is not known; "
                       "post-copy must be off", s->command);
    }
    if (length != right) {
        return ms_fail(errp, "command %u of the main stream has %u bytes",
                       s->command, length);
    }
    if (s->command == CMD_OPEN_RETURN_PATH &&
        !s->ops->return_path(s->opaque, errp)) {
        return false;
    }
    if (length) {
        stream_await(s, AWAIT_COMMAND_DATA, length);
    } else {
        stream_await(s, AWAIT_SECTION, 1);
    }
    return true;
}

static bool command_data(Stream *s, GError **errp)
{
    if (!s->ops->ping(s->opaque, get_be32(s->buffer), errp)) {
        return false;
    }
    stream_await(s, AWAIT_SECTION, 1);
    return true;
}

/* Sections */

static bool section(Stream *s, GError **errp)
{
    uint8_t type = s->buffer[0];

    if (type == SECTION_SUBSECTION && s->in_configuration) {
        stream_await(s, AWAIT_SUBSECTION_LENGTH, 1);
        return true;
    }
    s->in_configuration = false;
    switch (type) {
    case SECTION_COMMAND:
        stream_await(s, AWAIT_COMMAND, 4);
        return true;
    case SECTION_START:
        s->section = type;
        stream_await(s, AWAIT_START_ID, 5);
        return true;
    case SECTION_PART:
    case SECTION_END:
        if (!s->told_layout) {
            return ms_fail(errp, "a section of RAM comes before its start");
        }
        s->section = type;
        stream_await(s, AWAIT_SECTION_ID, 4);
        return true;
    case SECTION_FULL:
        return ms_fail(errp, "a device sends its state before RAM "
                       "(virtio-mem does): such machines are not supported");
    case SECTION_EOF:
        return ms_fail(errp, "the stream ends before RAM is complete");
    default:
        return ms_fail(errp, "section type %u of the main stream is not known",
                       type);
    }
}

static bool step(Stream *s, GError **errp)
{
    switch (s->state) {
    case AWAIT_FILE_HEADER:
        return stream_file_header(s, errp);
    case AWAIT_MACHINE:
        return stream_machine(s, errp);
    case AWAIT_SECTION:
        return section(s, errp);
    case AWAIT_SUBSECTION_LENGTH:
        return stream_subsection_length(s, errp);
    case AWAIT_SUBSECTION_NAME:
        return stream_subsection_name(s, errp);
    case AWAIT_SUBSECTION_DATA:
        return stream_subsection_data(s, errp);
    case AWAIT_COMMAND:
        return command(s, errp);
    case AWAIT_COMMAND_DATA:
        return command_data(s, errp);
    case AWAIT_START_ID:
        return stream_start_id(s, errp);
    case AWAIT_START_NAME:
        return stream_start_name(s, errp);
    case AWAIT_SECTION_ID:
        return stream_section_id(s, errp);
    case AWAIT_WORD:
        return stream_word(s, errp);
    case AWAIT_BLOCK_NAME_LENGTH:
        return stream_block_name_length(s, errp);
    case AWAIT_BLOCK_NAME:
        return stream_block_name(s, errp);
    case AWAIT_BLOCK_LENGTH:
        return stream_block_length(s, errp);
    case AWAIT_FOOTER:
        return stream_footer(s, errp);
    default:
        g_assert_not_reached();
    }
}

bool stream_feed(Stream *s, const void *from, size_t size, GError **errp)
{
    const uint8_t *data = from;

    while (size) {
        size_t n = MIN(size, s->want - s->have);

        if (s->state == COMPLETE || s->state == FAILED) {
            s->state = FAILED;
            return ms_fail(errp, "something follows the device state");
        }
        if (s->state == DEVICE_STATE) {
            if (!stream_device_state(s, data, size, errp)) {
                s->state = FAILED;
                return false;
            }
            return true;
        }
        memcpy(s->buffer + s->have, data, n);
        s->have += n;
        data += n;
        size -= n;
        if (s->have == s->want && !step(s, errp)) {
            s->state = FAILED;
            return false;
        }
    }
    return true;
}
