/*
 * A small checkpoint in a file, as QEMU writes it with mapped-ram
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "be.h"
#include "checkpoint-file.h"
#include "layout.h"

static void put_string(GByteArray *to, const char *s)
{
    g_byte_array_append(to, (const void *)s, strlen(s));
}

static void put_name(GByteArray *to, const char *s)
{
    put_u8(to, strlen(s));
    put_string(to, s);
}

static void put_section_end(GByteArray *to)
{
    put_be64(to, 0x10);
    put_u8(to, 0x7e);
    put_be32(to, CHECKPOINT_RAM_ID);
}

static void put_block(GByteArray *to, unsigned number, const TestBlock *b)
{
    unsigned at, bitmap_size = (b->pages + 63) / 64 * 8;
    uint64_t bitmap_at, pages_at;

    put_name(to, b->name);
    put_be64(to, b->pages * PAGE_SIZE);
    bitmap_at = to->len + 28;
    /* QEMU aligns to 1 MiB, and its loader wants 4 KiB: keep it small */
    pages_at = (bitmap_at + bitmap_size + PAGE_SIZE - 1) & -PAGE_SIZE;
    put_be32(to, 1);
    put_be64(to, PAGE_SIZE);
    put_be64(to, bitmap_at);
    put_be64(to, pages_at);
    at = to->len;
    g_byte_array_set_size(to, pages_at + b->pages * PAGE_SIZE);
    memset(to->data + at, 0, to->len - at);
    for (unsigned i = 0; i < b->num_data; i++) {
        uint64_t mark = checkpoint_mark(number, b->data[i]);

        to->data[bitmap_at + b->data[i] / 8] |= 1 << b->data[i] % 8;
        memcpy(to->data + pages_at + b->data[i] * PAGE_SIZE, &mark,
               sizeof(mark));
    }
}

GByteArray *checkpoint_bytes(const TestBlock *blocks, unsigned count)
{
    static const char vmdesc[] = "{\"page_size\": 4096, \"devices\": []}";
    GByteArray *to = g_byte_array_new();
    uint64_t total = 0;

    put_be32(to, 0x5145564d);
    put_be32(to, 3);
    put_u8(to, 7);
    put_be32(to, strlen(CHECKPOINT_MACHINE));
    put_string(to, CHECKPOINT_MACHINE);
    put_u8(to, 5);
    put_name(to, "configuration/capabilities");
    put_be32(to, 1);
    put_be32(to, 1);
    put_name(to, "mapped-ram");
    put_u8(to, 5);
    put_name(to, "configuration/target-page-bits");
    put_be32(to, 1);
    put_be32(to, 12);
    put_u8(to, 1);
    put_be32(to, CHECKPOINT_RAM_ID);
    put_name(to, "ram");
    put_be32(to, 0);
    put_be32(to, 4);
    for (unsigned i = 0; i < count; i++) {
        total += blocks[i].pages * PAGE_SIZE;
    }
    put_be64(to, total | 4);
    for (unsigned i = 0; i < count; i++) {
        put_block(to, i, &blocks[i]);
    }
    put_section_end(to);
    put_u8(to, 3);
    put_be32(to, CHECKPOINT_RAM_ID);
    put_section_end(to);
    put_string(to, "\4the devices\6");
    put_u8(to, 0);
    put_u8(to, 6);
    put_be32(to, strlen(vmdesc));
    put_string(to, vmdesc);
    return to;
}

int checkpoint_fd(const uint8_t *bytes, size_t size)
{
    int fd = memfd_create("checkpoint", MFD_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, bytes, size), ==, size);
    return fd;
}
