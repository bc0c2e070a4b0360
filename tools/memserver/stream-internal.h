/*
 * Parser of the main stream: what its files share
 *
 * Each function below takes what is in @buffer, all of the @want bytes, and
 * says by stream_await() what comes next.  One that fails says why in @errp.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_STREAM_INTERNAL_H
#define MEMSERVER_STREAM_INTERNAL_H

#include "stream.h"

/* Section types */
#define SECTION_EOF 0x00
#define SECTION_START 0x01
#define SECTION_PART 0x02
#define SECTION_END 0x03
#define SECTION_FULL 0x04
#define SECTION_SUBSECTION 0x05
#define SECTION_VMDESC 0x06
#define SECTION_CONFIGURATION 0x07
#define SECTION_COMMAND 0x08
#define SECTION_FOOTER 0x7e

typedef enum StreamState {
    AWAIT_FILE_HEADER,
    AWAIT_MACHINE,
    AWAIT_SECTION,
    AWAIT_SUBSECTION_LENGTH,
    AWAIT_SUBSECTION_NAME,
    AWAIT_SUBSECTION_DATA,
    AWAIT_COMMAND,
    AWAIT_COMMAND_DATA,
    AWAIT_START_ID,
    AWAIT_START_NAME,
    AWAIT_SECTION_ID,
    AWAIT_WORD,
    AWAIT_BLOCK_NAME_LENGTH,
    AWAIT_BLOCK_NAME,
    AWAIT_BLOCK_LENGTH,
    AWAIT_FOOTER,
    DEVICE_STATE,
    COMPLETE,
    FAILED,
} StreamState;

struct Stream {
    const StreamOps *ops;
    void *opaque;
    uint64_t max_ram, max_state;

    StreamState state;
    uint8_t buffer[512];                /* what @state wants, so far */
    size_t have, want;

    Layout *layout;
    bool in_configuration;              /* subsections may follow */
    char subsection[BLOCK_NAME_MAX + 1];
    uint16_t command;
    uint8_t section;                    /* type of the one that is open */
    bool started, told_layout;          /* START seen; blocks known */
    uint64_t blocks_left;               /* bytes of which blocks are due */
    char block[BLOCK_NAME_MAX + 1];
    uint64_t flushes, sections;

    GByteArray *device_state;
    size_t last_zero;                   /* in it: behind the last byte 0 */
};

/* @want: bytes, at most those of the buffer */
void stream_await(Stream *s, StreamState state, size_t want);

/* stream-configuration.c: header, machine, and subsections */
bool stream_file_header(Stream *s, GError **errp);
bool stream_machine(Stream *s, GError **errp);
bool stream_subsection_length(Stream *s, GError **errp);
bool stream_subsection_name(Stream *s, GError **errp);
bool stream_subsection_data(Stream *s, GError **errp);

/* stream-ram.c: sections of RAM, from behind their type to their footer */
bool stream_start_id(Stream *s, GError **errp);
bool stream_start_name(Stream *s, GError **errp);
bool stream_section_id(Stream *s, GError **errp);
bool stream_word(Stream *s, GError **errp);
bool stream_block_name_length(Stream *s, GError **errp);
bool stream_block_name(Stream *s, GError **errp);
bool stream_block_length(Stream *s, GError **errp);
bool stream_footer(Stream *s, GError **errp);

/*
 * stream-state.c: any part of the device state, as it comes.  The state is
 * COMPLETE with its last byte.
 */
bool stream_device_state(Stream *s, const uint8_t *data, size_t size,
                         GError **errp);

#endif
