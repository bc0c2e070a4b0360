/*
 * A small checkpoint in a file, as QEMU writes it with mapped-ram
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_CHECKPOINT_FILE_H
#define TEST_CHECKPOINT_FILE_H

#include <glib.h>
#include <stdint.h>

#define CHECKPOINT_MACHINE "pc-i440fx-10.0"
#define CHECKPOINT_RAM_ID 2

typedef struct TestBlock {
    const char *name;
    uint64_t pages;
    const uint64_t *data;               /* the pages that are not zero */
    unsigned num_data;
} TestBlock;

/* What the first eight bytes of a page with data are */
static inline uint64_t checkpoint_mark(unsigned block, uint64_t index)
{
    return 0x1111000000000000ULL * (block + 1) + index;
}

/* Bytes of the file; small, if the blocks are. */
GByteArray *checkpoint_bytes(const TestBlock *blocks, unsigned count);

/* A memfd with these bytes */
int checkpoint_fd(const uint8_t *bytes, size_t size);

#endif
