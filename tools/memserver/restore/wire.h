/*
 * Numbers of QEMU's migration stream, as far as a restore needs them
 *
 * Names and values are those of QEMU's migration/{savevm,ram,migration}.[ch]
 * and multifd.h.  All numbers of several bytes are big-endian.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_WIRE_H
#define RESTORE_WIRE_H

#include <stdint.h>

#define QEMU_VM_FILE_MAGIC 0x5145564d
#define QEMU_VM_FILE_VERSION 3

enum {
    QEMU_VM_EOF = 0,
    QEMU_VM_SECTION_START = 1,
    QEMU_VM_SECTION_PART = 2,
    QEMU_VM_SECTION_END = 3,
    QEMU_VM_CONFIGURATION = 7,
    QEMU_VM_COMMAND = 8,
    QEMU_VM_SECTION_FOOTER = 0x7e,
};

#define RAM_SECTION_VERSION 4

/* In the low bits of an offset in a RAM section */
enum {
    RAM_SAVE_FLAG_ZERO = 0x02,
    RAM_SAVE_FLAG_MEM_SIZE = 0x04,
    RAM_SAVE_FLAG_PAGE = 0x08,
    RAM_SAVE_FLAG_EOS = 0x10,
    RAM_SAVE_FLAG_CONTINUE = 0x20,      /* same block as before */
    RAM_SAVE_FLAG_MULTIFD_FLUSH = 0x200,
};

enum {
    MIG_CMD_OPEN_RETURN_PATH = 1,
    MIG_CMD_PING = 2,
    MIG_CMD_POSTCOPY_ADVISE = 3,
    MIG_CMD_POSTCOPY_LISTEN = 4,
    MIG_CMD_POSTCOPY_RUN = 5,
    MIG_CMD_POSTCOPY_RAM_DISCARD = 6,
    MIG_CMD_PACKAGED = 7,
    MIG_CMD_POSTCOPY_RESUME = 9,
    MIG_CMD_RECV_BITMAP = 10,
};

/* Return path: type, length, data */
enum {
    MIG_RP_MSG_SHUT = 1,
    MIG_RP_MSG_PONG = 2,
    MIG_RP_MSG_REQ_PAGES_ID = 3,
    MIG_RP_MSG_REQ_PAGES = 4,
    MIG_RP_MSG_RECV_BITMAP = 5,
    MIG_RP_MSG_RESUME_ACK = 6,
    MIG_RP_MSG_SWITCHOVER_ACK = 7,
};

#define RAMBLOCK_RECV_BITMAP_ENDING 0x0123456789abcdefULL
#define MIGRATION_RESUME_ACK_VALUE 1

#define MULTIFD_MAGIC 0x11223344
#define MULTIFD_VERSION 1
#define MULTIFD_FLAG_SYNC 1
#define MULTIFD_PACKET_PAGES 128        /* MULTIFD_PACKET_SIZE / 4096 */
#define MULTIFD_BLOCK_NAME 256

#endif
