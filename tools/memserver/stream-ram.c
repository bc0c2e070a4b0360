/*
 * Parser of the main stream: the sections of RAM
 *
 * They have the list of RAM blocks, and words that say how the channels are
 * to be read.  Pages come by the channels alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "be.h"
#include "error.h"
#include "stream-internal.h"
#include "text.h"

/* Words of the section "ram": flags, below an offset in whole pages */
#define RAM_ZERO 0x002
#define RAM_MEM_SIZE 0x004
#define RAM_PAGE 0x008
#define RAM_EOS 0x010
#define RAM_XBZRLE 0x040
#define RAM_HOOK 0x080
#define RAM_COMPRESS 0x100
#define RAM_MULTIFD_FLUSH 0x200

#define RAM_VERSION 4

bool stream_start_id(Stream *s, GError **errp)
{
    uint8_t length = s->buffer[4];

    if (!length) {
        return ms_fail(errp, "a section has no name");
    }
    s->layout->ram_id = get_be32(s->buffer);
    stream_await(s, AWAIT_START_NAME, length + 8);
    return true;
}

bool stream_start_name(Stream *s, GError **errp)
{
    size_t length = s->want - 8;
    uint32_t instance = get_be32(s->buffer + length);
    uint32_t version = get_be32(s->buffer + length + 4);

    if (length != 3 || memcmp(s->buffer, "ram", 3)) {
        g_autofree char *name = g_strndup((char *)s->buffer, length);
        g_autofree char *safe = g_strescape(name, NULL);

        return ms_fail(errp, "device \"%s\" sends its state in several steps: "
                       "such machines are not supported", safe);
    }
    if (s->started) {
        return ms_fail(errp, "section \"ram\" starts twice");
    }
    if (instance != 0 || version != RAM_VERSION) {
        return ms_fail(errp, "section \"ram\" has instance %u, version %u; "
                       "known are 0 and %u", instance, version, RAM_VERSION);
    }
    s->started = true;
    stream_await(s, AWAIT_WORD, 8);
    return true;
}

bool stream_section_id(Stream *s, GError **errp)
{
    uint32_t id = get_be32(s->buffer);

    if (id != s->layout->ram_id) {
        return ms_fail(errp, "section %u is not that of RAM (%u)", id,
                       s->layout->ram_id);
    }
    stream_await(s, AWAIT_WORD, 8);
    return true;
}

static bool mem_size(Stream *s, uint64_t total, GError **errp)
{
    if (s->section != SECTION_START || s->told_layout) {
        return ms_fail(errp, "the list of RAM blocks comes twice");
    }
    if (!total || total > s->max_ram) {
        return ms_fail(errp, "the machine has %" PRIu64 " bytes of RAM, "
                       "accepted are up to %" PRIu64, total, s->max_ram);
    }
    s->layout->total = s->blocks_left = total;
    stream_await(s, AWAIT_BLOCK_NAME_LENGTH, 1);
    return true;
}

bool stream_word(Stream *s, GError **errp)
{
    uint64_t w = get_be64(s->buffer);
    uint64_t offset = w & -(uint64_t)PAGE_SIZE;
    unsigned flags = w & (PAGE_SIZE - 1);

    switch (flags) {
    case RAM_MEM_SIZE:
        return mem_size(s, offset, errp);
    case RAM_MULTIFD_FLUSH:
        if (offset || !s->told_layout) {
            break;
        }
        s->flushes++;
        stream_await(s, AWAIT_WORD, 8);
        return true;
    case RAM_EOS:
        if (offset || !s->told_layout) {
            break;
        }
        s->sections++;
        stream_await(s, AWAIT_FOOTER, 5);
        return true;
    }
    if (flags & (RAM_ZERO | RAM_PAGE | RAM_XBZRLE | RAM_COMPRESS)) {
        return ms_fail(errp, "a page comes in the main stream: capability "
                       "multifd must be on, and zero-page-detection must not "
                       "be legacy");
    }
    if (flags & RAM_HOOK) {
        return ms_fail(errp, "RDMA is not supported");
    }
    return ms_fail(errp, "word %016" PRIx64 " of section \"ram\" is not known",
                   w);
}

bool stream_block_name_length(Stream *s, GError **errp)
{
    if (!s->buffer[0]) {
        return ms_fail(errp, "a RAM block has no name");
    }
    stream_await(s, AWAIT_BLOCK_NAME, s->buffer[0]);
    return true;
}

bool stream_block_name(Stream *s, GError **errp)
{
    if (!text_is_printable(s->buffer, s->want)) {
        return ms_fail(errp, "the name of a RAM block is not printable");
    }
    memcpy(s->block, s->buffer, s->want);
    s->block[s->want] = '\0';
    if (layout_find(s->layout, s->block) >= 0) {
        return ms_fail(errp, "RAM block %s is there twice", s->block);
    }
    stream_await(s, AWAIT_BLOCK_LENGTH, 8);
    return true;
}

bool stream_block_length(Stream *s, GError **errp)
{
    LayoutBlock block = { .length = get_be64(s->buffer) };

    if (!block.length || block.length % PAGE_SIZE ||
        block.length > s->blocks_left) {
        return ms_fail(errp, "RAM block %s has %" PRIu64 " bytes, left are %"
                       PRIu64 "; capabilities postcopy-ram and "
                       "x-ignore-shared must be off", s->block, block.length,
                       s->blocks_left);
    }
    if (layout_num_blocks(s->layout) >= LAYOUT_MAX_BLOCKS) {
        return ms_fail(errp, "the machine has more than %u RAM blocks",
                       LAYOUT_MAX_BLOCKS);
    }
    g_strlcpy(block.name, s->block, sizeof(block.name));
    g_array_append_val(s->layout->blocks, block);
    s->blocks_left -= block.length;
    if (s->blocks_left) {
        stream_await(s, AWAIT_BLOCK_NAME_LENGTH, 1);
        return true;
    }
    s->told_layout = true;
    if (!s->ops->layout(s->opaque, s->layout, errp)) {
        return false;
    }
    stream_await(s, AWAIT_WORD, 8);
    return true;
}

/*
 * Machine types before 8.1 have no FLUSH words; there each section of RAM
 * ends with a SYNC on all channels (multifd-flush-after-each-section).
 */
static uint64_t expected_syncs(const Stream *s)
{
    return s->flushes ? s->flushes : s->sections;
}

bool stream_footer(Stream *s, GError **errp)
{
    if (s->buffer[0] != SECTION_FOOTER ||
        get_be32(s->buffer + 1) != s->layout->ram_id) {
        return ms_fail(errp, "a section of RAM has no footer");
    }
    if (s->section != SECTION_END) {
        stream_await(s, AWAIT_SECTION, 1);
        return true;
    }
    if (!s->ops->ram_end(s->opaque, expected_syncs(s), errp)) {
        return false;
    }
    stream_await(s, DEVICE_STATE, 0);
    return true;
}
