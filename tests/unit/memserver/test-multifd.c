/*
 * The parser of a multifd channel, and the codecs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "codec.h"
#include "multifd.h"
#include "recorded.h"

/* Gives @b to the parser; stops at an error.  Counts what is told. */
typedef struct Told {
    unsigned packets, normal, zero, syncs, unpacked;
} Told;

static bool feed(Told *t, const GByteArray *b, bool unpack, GError **errp)
{
    g_autofree uint8_t *pages = g_malloc(MULTIFD_BYTES);
    Codec *codec = NULL;
    size_t at = 0;
    Multifd m;

    multifd_init(&m);
    for (;;) {
        void *to, *where[MULTIFD_PAGES];
        size_t n = multifd_wants(&m, &to);

        if (b->len - at < n) {
            break;                      /* the recording ends somewhere */
        }
        memcpy(to, b->data + at, n);
        at += n;
        switch (multifd_got(&m, errp)) {
        case MULTIFD_ERROR:
            codec_free(codec);
            return false;
        case MULTIFD_HAS_PACKET:
            break;
        default:
            continue;
        }
        t->packets++;
        t->normal += m.packet.normal;
        t->zero += m.packet.zero;
        t->syncs += m.packet.sync;
        if (b->len - at < m.packet.payload) {
            break;
        }
        for (unsigned i = 0; i < m.packet.normal; i++) {
            where[i] = pages + i * PAGE_SIZE;
        }
        if (unpack && m.packet.normal) {
            codec = codec ? codec : codec_new(m.packet.method, errp);
            g_assert_true(codec_unpack(codec, b->data + at, m.packet.payload,
                                       where, m.packet.normal, errp));
            t->unpacked += m.packet.normal;
        }
        at += m.packet.payload;
    }
    codec_free(codec);
    return true;
}

static void test_recorded(void)
{
    static const char *const methods[] = { "none", "zlib", "zstd" };

    for (unsigned i = 0; i < G_N_ELEMENTS(methods); i++) {
        g_autofree char *name = g_strdup_printf("channel-%s", methods[i]);
        g_autoptr(GByteArray) b = recorded(name);
        g_autoptr(GError) error = NULL;
        Told t = { 0 };

        g_assert_true(feed(&t, b, i > 0, &error));
        g_assert_cmpuint(t.packets, >, 2);
        g_assert_cmpuint(t.normal, >, 20);
        g_assert_cmpuint(t.syncs, >, 0);
        g_assert_true(i == 0 || t.unpacked == t.normal);
    }
}

/* An introduction and a packet, of which one 32-bit word is changed. */
static GByteArray *packet(unsigned at, uint32_t value)
{
    GByteArray *b = g_byte_array_new();
    uint32_t word = GUINT32_TO_BE(value);
    uint8_t *p;

    g_byte_array_set_size(b, 64 + MULTIFD_PACKET_SIZE + PAGE_SIZE);
    memset(b->data, 0, b->len);
    memcpy(b->data, "\x11\x22\x33\x44\0\0\0\1", 8);
    p = b->data + 64;
    memcpy(p, "\x11\x22\x33\x44\0\0\0\1\0\0\0\1\0\0\0\x80\0\0\0\1\0\0\x10", 23);
    p[35] = 1;                          /* a zero page */
    memcpy(p + 64, "pc.ram", 7);
    p[320 + 6] = 0x10;                  /* page 1 has data, page 0 is zero */
    memcpy(b->data + at, &word, 4);
    return b;
}

static void test_hostile(void)
{
    static const struct {
        unsigned at;
        uint32_t value;
        const char *error;              /* NULL: is good */
    } cases[] = {
        { 72, 1, NULL },
        { 72, 0, NULL },
        { 0, 0x11223345, "no multifd" },
        { 4, 2, "version 2" },
        { 64, 0x11223345, "no multifd" },
        { 68, 2, "version 2" },
        { 72, 0x40, "VFIO" },
        { 72, 0x80, "flags" },
        { 72, 0x81000001, "flags" },
        { 72, 4 << 1, "none, zlib or zstd" },
        { 72, 31 << 1, "none, zlib or zstd" },
        { 76, 129, "of 129" },
        { 76, 0xffffffff, "of 4294967295" },
        { 76, 1, "1 pages and 1 zero pages of 1" },
        { 80, 128, "128 pages and 1 zero" },
        { 80, 0xffffffff, "pages" },
        { 80, 2, "4096 bytes for 2 pages" },
        { 84, 4097, "4097 bytes" },
        { 84, 0xffffffff, "bytes" },
        { 96, 128, "1 pages and 128 zero" },
        { 96, 0xffffffff, "pages" },
        { 64 + 324, 0x1001, "within a page" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) b = packet(cases[i].at, cases[i].value);
        g_autoptr(GError) error = NULL;
        Told t = { 0 };
        bool ok = feed(&t, b, false, &error);

        g_assert_true(ok == !cases[i].error);
        if (!ok) {
            g_assert_nonnull(strstr(error->message, cases[i].error));
        } else {
            g_assert_cmpuint(t.normal, ==, 1);
            g_assert_cmpuint(t.zero, ==, 1);
        }
    }
}

static void test_compressed_length(void)
{
    g_autoptr(GByteArray) b = packet(72, 2 << 1);
    g_autoptr(GError) error = NULL;
    Told t = { 0 };

    g_assert_true(feed(&t, b, false, NULL));
    b->data[64 + 20] = 1;               /* 16 MiB */
    g_assert_false(feed(&t, b, false, &error));
    /* Without pages there are no bytes either. */
    b->data[64 + 20] = 0;
    b->data[64 + 19] = 0;
    g_clear_error(&error);
    g_assert_false(feed(&t, b, false, &error));
}

static void test_no_end_of_name(void)
{
    g_autoptr(GByteArray) b = packet(72, 1);
    g_autoptr(GError) error = NULL;
    Told t = { 0 };

    memset(b->data + 64 + 64, 'a', 256);
    g_assert_false(feed(&t, b, false, &error));
    g_assert_nonnull(strstr(error->message, "no end"));
}

static void test_locate(void)
{
    g_autoptr(Layout) l = layout_new();
    LayoutBlock block = { "pc.ram", 0x3000 };
    MultifdPacket p = { .normal = 1, .zero = 1, .block = "pc.ram" };

    g_array_append_val(l->blocks, block);
    p.offset[0] = 0x2000;
    g_assert_cmpint(multifd_locate(&p, l, NULL), ==, 0);
    p.offset[1] = 0x3000;
    g_assert_cmpint(multifd_locate(&p, l, NULL), ==, -1);
    p.offset[1] = UINT64_MAX & -4096ull;
    g_assert_cmpint(multifd_locate(&p, l, NULL), ==, -1);
    p.offset[1] = 0;
    strcpy(p.block, "pc.ra");
    g_assert_cmpint(multifd_locate(&p, l, NULL), ==, -1);
}

/* Each prefix, and bits that flip: an error, or the same number of bytes. */
static void test_bad_compression(void)
{
    static const MultifdMethod methods[] = { MULTIFD_ZLIB, MULTIFD_ZSTD };
    g_autofree uint8_t *page = g_malloc(2 * PAGE_SIZE);
    void *where[1] = { page };

    for (unsigned i = 0; i < 2; i++) {
        uint8_t noise[200];

        for (unsigned n = 0; n < 20000; n++) {
            Codec *c = codec_new(methods[i], NULL);
            unsigned size = g_test_rand_int_range(0, sizeof(noise));

            for (unsigned k = 0; k < size; k++) {
                noise[k] = g_test_rand_int();
            }
            if (n % 2) {                /* a right beginning */
                memcpy(noise, i ? "\x28\xb5\x2f\xfd\x00\x58" : "\x78\x9c", 2);
            }
            memset(page + PAGE_SIZE, 0x55, PAGE_SIZE);
            codec_unpack(c, noise, size, where, 1, NULL);
            for (unsigned k = 0; k < PAGE_SIZE; k++) {
                g_assert_cmpuint(page[PAGE_SIZE + k], ==, 0x55);
            }
            codec_free(c);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memserver/multifd/recorded", test_recorded);
    g_test_add_func("/memserver/multifd/hostile", test_hostile);
    g_test_add_func("/memserver/multifd/compressed", test_compressed_length);
    g_test_add_func("/memserver/multifd/name", test_no_end_of_name);
    g_test_add_func("/memserver/multifd/locate", test_locate);
    g_test_add_func("/memserver/multifd/noise", test_bad_compression);
    return g_test_run();
}
