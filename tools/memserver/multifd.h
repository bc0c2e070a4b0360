/*
 * Parser of what comes through a multifd channel
 *
 *   64 bytes of introduction | packet, pages | packet, pages | ...
 *
 * The parser says where the next bytes go and how many they are; it does no
 * I/O.  The bytes of pages are not its business: they go from the socket to
 * where they belong.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_MULTIFD_H
#define MEMSERVER_MULTIFD_H

#include "layout.h"

/* QEMU's MULTIFD_PACKET_SIZE, in pages */
#define MULTIFD_PAGES 128
#define MULTIFD_BYTES (MULTIFD_PAGES * PAGE_SIZE)

#define MULTIFD_INIT_SIZE 64
#define MULTIFD_HEADER_SIZE 12
#define MULTIFD_PACKET_SIZE (320 + 8 * MULTIFD_PAGES)

/*
 * What 512 KiB may become by compression: zstd's bound is 2 KiB above, that of
 * zlib 160 bytes; both send a marker of some bytes with each packet.
 */
#define MULTIFD_MAX_COMPRESSED (MULTIFD_BYTES + (16 << 10))

typedef enum MultifdMethod {
    MULTIFD_PLAIN = 0,
    MULTIFD_ZLIB = 1,
    MULTIFD_ZSTD = 2,
} MultifdMethod;

typedef struct MultifdPacket {
    bool sync;                          /* after the pages */
    MultifdMethod method;               /* means nothing without pages */
    unsigned normal;                    /* pages that come with data */
    unsigned zero;                      /* pages that do not */
    uint32_t payload;                   /* bytes that follow the packet */
    char block[BLOCK_NAME_MAX + 1];     /* "" without pages */
    uint64_t offset[MULTIFD_PAGES];     /* normal ones first; whole pages */
} MultifdPacket;

typedef struct Multifd {
    enum { MULTIFD_AT_INIT, MULTIFD_AT_HEADER, MULTIFD_AT_PACKET } state;
    uint8_t buffer[MULTIFD_PACKET_SIZE];
    uint8_t id;                         /* once it is known */
    uint8_t uuid[16];
    MultifdPacket packet;
} Multifd;

typedef enum MultifdEvent {
    MULTIFD_ERROR,
    MULTIFD_MORE,                       /* nothing yet */
    MULTIFD_INTRODUCED,                 /* id and uuid are known */
    MULTIFD_HAS_PACKET,                 /* and its payload comes next */
} MultifdEvent;

void multifd_init(Multifd *m);

/* Where the next bytes go; returns how many. */
size_t multifd_wants(Multifd *m, void **buffer);

/* They are there. */
MultifdEvent multifd_got(Multifd *m, GError **errp);

/*
 * Whether the pages of the packet are in the block that it names.  Returns
 * the number of the block, or -1.  The packet must have pages.
 */
int multifd_locate(const MultifdPacket *p, const Layout *l, GError **errp);

#endif
