/*
 * What a source of a migration says, made from an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "speak.h"

void speak_header(Out *out, const MemImage *image)
{
    const Layout *l = mem_image_layout(image);

    out_be32(out, QEMU_VM_FILE_MAGIC);
    out_be32(out, QEMU_VM_FILE_VERSION);
    out_u8(out, QEMU_VM_CONFIGURATION);
    out_be32(out, strlen(l->machine));
    out_copy(out, l->machine, strlen(l->machine));
    out_copy(out, l->subsections->data, l->subsections->len);
}

void speak_command(Out *out, unsigned command, const void *data, size_t size)
{
    out_u8(out, QEMU_VM_COMMAND);
    out_be16(out, command);
    out_be16(out, size);
    out_copy(out, data, size);
}

void speak_ping(Out *out, uint32_t value)
{
    value = GUINT32_TO_BE(value);
    speak_command(out, MIG_CMD_PING, &value, sizeof(value));
}

void speak_section(Out *out, const MemImage *image, unsigned kind)
{
    out_u8(out, kind);
    out_be32(out, mem_image_layout(image)->ram_id);
    if (kind == QEMU_VM_SECTION_START) {
        out_name(out, "ram");
        out_be32(out, 0);               /* instance */
        out_be32(out, RAM_SECTION_VERSION);
    }
}

void speak_section_end(Out *out, const MemImage *image)
{
    out_be64(out, RAM_SAVE_FLAG_EOS);
    out_u8(out, QEMU_VM_SECTION_FOOTER);
    out_be32(out, mem_image_layout(image)->ram_id);
}

void speak_blocks(Out *out, const MemImage *image, const uint64_t *page_sizes)
{
    const Layout *l = mem_image_layout(image);

    out_be64(out, l->total | RAM_SAVE_FLAG_MEM_SIZE);
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        out_name(out, layout_block(l, i)->name);
        out_be64(out, layout_block(l, i)->length);
        if (page_sizes && page_sizes[i] != PAGE_SIZE) {
            out_be64(out, page_sizes[i]);
        }
    }
}

static void advise(Out *out, const Layout *l, const uint64_t *page_sizes)
{
    uint64_t sizes[2] = { 0, GUINT64_TO_BE(PAGE_SIZE) };

    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        sizes[0] |= page_sizes[i];
    }
    sizes[0] = GUINT64_TO_BE(sizes[0]);
    speak_command(out, MIG_CMD_POSTCOPY_ADVISE, sizes, sizeof(sizes));
}

/*
 * RAM is empty since ADVISE.  But QEMU 10.0 refuses RUN when there was no
 * DISCARD between ADVISE and LISTEN: LISTEN leaves the wrong state behind
 * then.  DISCARD also turns huge pages off.  Without that a page would bring
 * in zeros for its neighbours, which would never fault.
 */
static void discard(Out *out, const LayoutBlock *b)
{
    size_t name = strlen(b->name);

    out_u8(out, QEMU_VM_COMMAND);
    out_be16(out, MIG_CMD_POSTCOPY_RAM_DISCARD);
    out_be16(out, 1 + 1 + name + 1 + 8 + 8);
    out_u8(out, 0);                     /* version */
    out_name(out, b->name);
    out_u8(out, 0);                     /* end of the name */
    out_be64(out, 0);
    out_be64(out, b->length);
}

/*
 * QEMU reads the whole package first.  While it loads the devices' state from
 * it, pages can be asked for, and come.
 */
static void package(Out *out, const MemImage *image)
{
    size_t size;
    const void *devices = mem_image_devices(image, &size);
    uint32_t all = 5 + size + 9 + 5;

    all = GUINT32_TO_BE(all);
    speak_command(out, MIG_CMD_PACKAGED, &all, sizeof(all));
    speak_command(out, MIG_CMD_POSTCOPY_LISTEN, NULL, 0);
    out_refer(out, devices, size);
    speak_ping(out, PING_LOADED);
    speak_command(out, MIG_CMD_POSTCOPY_RUN, NULL, 0);
}

void speak_postcopy(Out *out, const MemImage *image,
                    const uint64_t *page_sizes)
{
    const Layout *l = mem_image_layout(image);

    speak_header(out, image);
    speak_command(out, MIG_CMD_OPEN_RETURN_PATH, NULL, 0);
    speak_ping(out, PING_HELLO);
    advise(out, l, page_sizes);
    speak_section(out, image, QEMU_VM_SECTION_START);
    speak_blocks(out, image, page_sizes);
    speak_section_end(out, image);
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        discard(out, layout_block(l, i));
    }
    speak_ping(out, PING_DISCARDED);
    package(out, image);
    speak_ping(out, PING_LISTENING);
}

void speak_bitmaps(Out *out, const MemImage *image)
{
    const Layout *l = mem_image_layout(image);

    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        const char *name = layout_block(l, i)->name;

        out_u8(out, QEMU_VM_COMMAND);
        out_be16(out, MIG_CMD_RECV_BITMAP);
        out_be16(out, 1 + strlen(name));
        out_name(out, name);
    }
}

void speak_page(Out *out, const MemImage *image, unsigned block, uint64_t page,
                uint64_t page_size, int *last)
{
    uint64_t count = page_size / PAGE_SIZE;

    for (uint64_t i = page * count; i < (page + 1) * count; i++) {
        const void *data = mem_image_page(image, block, i);
        uint64_t word = i << PAGE_BITS |
                        (data ? RAM_SAVE_FLAG_PAGE : RAM_SAVE_FLAG_ZERO);

        if (*last == (int)block) {
            out_be64(out, word | RAM_SAVE_FLAG_CONTINUE);
        } else {
            out_be64(out, word);
            out_name(out, layout_block(mem_image_layout(image), block)->name);
            *last = block;
        }
        if (data) {
            out_refer(out, data, PAGE_SIZE);
        } else {
            out_u8(out, 0);             /* what the page is full of */
        }
    }
}
