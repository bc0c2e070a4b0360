/*
 * Unit tests of the image of a checkpoint: good files, and bad ones
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <unistd.h>

#include "checkpoint-file.h"
#include "image.h"

static const uint64_t ram_data[] = { 0, 1, 63, 64, 99 };
static const uint64_t rom_data[] = { 3 };
static const TestBlock blocks[] = {
    { "pc.ram", 100, ram_data, G_N_ELEMENTS(ram_data) },
    { "pc.bios", 4, rom_data, 1 },
    { "vga.vram", 8, NULL, 0 },
};

static MemImage *open_bytes(const uint8_t *bytes, size_t size, GError **errp)
{
    int fd = checkpoint_fd(bytes, size);
    MemImage *m = mem_image_from_file(fd, "vm", "g1", errp);

    close(fd);
    return m;
}

static MemImage *open_good(void)
{
    g_autoptr(GByteArray) b = checkpoint_bytes(blocks, G_N_ELEMENTS(blocks));
    g_autoptr(GError) err = NULL;
    MemImage *m = open_bytes(b->data, b->len, &err);

    g_assert_no_error(err);
    return m;
}

static bool has_data(const TestBlock *b, uint64_t index)
{
    for (unsigned i = 0; i < b->num_data; i++) {
        if (b->data[i] == index) {
            return true;
        }
    }
    return false;
}

static void test_good(void)
{
    g_autoptr(MemImage) m = open_good();
    const Layout *l = mem_image_layout(m);
    const MemImageId *id = mem_image_id(m);
    size_t whole, devices;
    const char *state = mem_image_state(m, &whole);

    g_assert_cmpstr(l->machine, ==, CHECKPOINT_MACHINE);
    g_assert_cmpuint(l->ram_id, ==, CHECKPOINT_RAM_ID);
    g_assert_cmpuint(layout_num_blocks(l), ==, G_N_ELEMENTS(blocks));
    /* Capabilities are dropped, the other subsection is kept as it is */
    g_assert_cmpuint(l->subsections->len, ==, 2 + 30 + 4 + 4);
    g_assert_cmpmem(l->subsections->data + 2, 30,
                    "configuration/target-page-bits", 30);
    for (unsigned i = 0; i < G_N_ELEMENTS(blocks); i++) {
        g_assert_cmpstr(layout_block(l, i)->name, ==, blocks[i].name);
        g_assert_cmpuint(layout_pages(l, i), ==, blocks[i].pages);
        for (uint64_t p = 0; p < blocks[i].pages; p++) {
            const void *page = mem_image_page(m, i, p);
            uint64_t mark = checkpoint_mark(i, p);

            g_assert_cmpint(page != NULL, ==, has_data(&blocks[i], p));
            if (page) {
                g_assert_cmpmem(page, sizeof(mark), &mark, sizeof(mark));
            }
        }
    }
    g_assert_cmpint(state[whole - 1], ==, '}');
    mem_image_devices(m, &devices);
    g_assert_cmpmem(state, devices, "\4the devices\6", 13);
    g_assert_cmpstr(id->vm, ==, "vm");
    g_assert_cmpstr(id->generation, ==, "g1");
    g_assert_cmpuint(strlen(id->layout), ==, 64);
    g_assert_cmpuint(strlen(id->state), ==, 64);
}

/* The sums tell other layouts and states apart, and nothing else. */
static void test_identity(void)
{
    TestBlock other[G_N_ELEMENTS(blocks)];
    g_autoptr(MemImage) m = open_good(), again = open_good(), moved = NULL;
    g_autoptr(MemImage) changed = NULL;
    g_autoptr(GByteArray) b = checkpoint_bytes(blocks, G_N_ELEMENTS(blocks));
    g_autoptr(GByteArray) c = NULL;

    g_assert_cmpstr(mem_image_id(m)->layout, ==,
                    mem_image_id(again)->layout);
    g_assert_cmpstr(mem_image_id(m)->state, ==, mem_image_id(again)->state);

    memcpy(other, blocks, sizeof(other));
    other[2].pages = 16;
    c = checkpoint_bytes(other, G_N_ELEMENTS(other));
    moved = open_bytes(c->data, c->len, NULL);
    g_assert_cmpstr(mem_image_id(m)->layout, !=,
                    mem_image_id(moved)->layout);
    g_assert_cmpstr(mem_image_id(m)->state, ==, mem_image_id(moved)->state);

    size_t size;
    mem_image_state(m, &size);
    b->data[b->len - size + 4] ^= 1;
    changed = open_bytes(b->data, b->len, NULL);
    g_assert_cmpstr(mem_image_id(m)->layout, ==,
                    mem_image_id(changed)->layout);
    g_assert_cmpstr(mem_image_id(m)->state, !=,
                    mem_image_id(changed)->state);
}

/* No part of it is an image. */
static void test_truncated(void)
{
    g_autoptr(GByteArray) b = checkpoint_bytes(blocks, G_N_ELEMENTS(blocks));

    for (size_t size = 0; size < b->len;
         size += size < 400 || size > b->len - 200 ? 1 : 5001) {
        g_autoptr(GError) err = NULL;

        g_assert_null(open_bytes(b->data, size, &err));
        g_assert_nonnull(err);
    }
}

/* Whatever is in the head: an error, or an image all of which can be read. */
static void test_changed(void)
{
    g_autoptr(GByteArray) b = checkpoint_bytes(blocks, G_N_ELEMENTS(blocks));
    static const uint8_t values[] = { 0, 0x80, 0xff };

    for (size_t at = 0; at < b->len; at += at < 400 ? 1 : 4999) {
        for (unsigned v = 0; v < sizeof(values); v++) {
            uint8_t old = b->data[at];
            g_autoptr(GError) err = NULL;
            g_autoptr(MemImage) m = NULL;

            b->data[at] = values[v];
            m = open_bytes(b->data, b->len, &err);
            b->data[at] = old;
            g_assert_true(!m == !!err);
            if (!m) {
                continue;
            }
            const Layout *l = mem_image_layout(m);
            /* volatile: or nothing would be read */
            volatile char sum = 0;

            for (unsigned i = 0; i < layout_num_blocks(l); i++) {
                for (uint64_t p = 0; p < layout_pages(l, i); p++) {
                    const char *page = mem_image_page(m, i, p);

                    if (page) {
                        sum += page[0] + page[PAGE_SIZE - 1];
                    }
                }
            }
        }
    }
}

static void test_not_a_file(void)
{
    g_autoptr(GError) err = NULL;
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_null(mem_image_from_file(fds[0], NULL, NULL, &err));
    g_assert_nonnull(strstr(err->message, "not a file"));
    close(fds[0]);
    close(fds[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/image/good", test_good);
    g_test_add_func("/image/identity", test_identity);
    g_test_add_func("/image/truncated", test_truncated);
    g_test_add_func("/image/changed", test_changed);
    g_test_add_func("/image/not-a-file", test_not_a_file);
    return g_test_run();
}
