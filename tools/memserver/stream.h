/*
 * Parser of the main stream of a migration with multifd
 *
 * Bytes are pushed in as they come; what they mean is told by calls.  There is
 * no I/O here, and nothing is allocated for a length before it was checked.
 *
 *   magic, version | configuration | commands | "ram" START, PART..., END |
 *   device state
 *
 * The device state is opaque: its end is that of the description in JSON
 * (vmdesc), with which QEMU ends it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_STREAM_H
#define MEMSERVER_STREAM_H

#include "layout.h"

/* The first four bytes */
#define STREAM_MAGIC 0x5145564d

typedef struct StreamOps {
    /* The source wants answers; all the others come after it, or never. */
    bool (*return_path)(void *opaque, GError **errp);
    bool (*ping)(void *opaque, uint32_t value, GError **errp);
    /* Once; the layout is the parser's. */
    bool (*layout)(void *opaque, const Layout *layout, GError **errp);
    /*
     * All that was told of RAM has been sent.  @syncs: how many SYNCs each
     * channel must have had.
     */
    bool (*ram_end)(void *opaque, uint64_t syncs, GError **errp);
} StreamOps;

typedef struct Stream Stream;

/* @max_ram: bytes, @max_state: bytes of device state that are accepted. */
Stream *stream_new(const StreamOps *ops, void *opaque, uint64_t max_ram,
                   uint64_t max_state);
void stream_free(Stream *s);

/*
 * Returns false on an error, which is final.  After the end of the device
 * state any further byte is one.
 */
bool stream_feed(Stream *s, const void *data, size_t size, GError **errp);

/* All is there, up to the end of the device state. */
bool stream_complete(const Stream *s);

/* What is awaited, for messages: "the configuration" */
const char *stream_awaits(const Stream *s);

/* The device state, from behind RAM's END section. */
const GByteArray *stream_state(const Stream *s);

#endif
