/*
 * Fuzzer: a multifd channel, up to the slots of a generation
 *
 * The first byte says whether there is a parent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "codec.h"
#include "fuzz.h"
#include "generation.h"

#define MEMORY (8u << 20)

static Layout *layout(void)
{
    static Layout *l;
    LayoutBlock ram = { "pc.ram", 16 << 20 }, rom = { "pc.rom", 3 * PAGE_SIZE };

    if (!l) {
        l = layout_new();
        l->machine = g_strdup("pc");
        g_array_append_val(l->blocks, ram);
        g_array_append_val(l->blocks, rom);
        l->total = ram.length + rom.length;
    }
    return l;
}

typedef struct Channel {
    Generation *g;
    SlabCursor cursor;
    Codec *codec;
    MultifdMethod method;
} Channel;

static bool packet(Channel *c, const MultifdPacket *p, const uint8_t *payload)
{
    void *where[MULTIFD_PAGES];
    int block;

    g_assert(p->normal + p->zero <= MULTIFD_PAGES);
    g_assert(p->payload <= MULTIFD_MAX_COMPRESSED);
    if (!p->normal && !p->zero) {
        return true;
    }
    block = multifd_locate(p, layout(), NULL);
    if (block < 0 || !generation_place(c->g, &c->cursor, block, p, where,
                                       NULL)) {
        return false;
    }
    if (!p->normal) {
        return true;
    }
    if (p->method == MULTIFD_PLAIN) {
        for (unsigned i = 0; i < p->normal; i++) {
            memcpy(where[i], payload + i * PAGE_SIZE, PAGE_SIZE);
        }
        return true;
    }
    if (!c->codec) {
        c->codec = codec_new(p->method, NULL);
        c->method = p->method;
    }
    return c->method == p->method &&
        codec_unpack(c->codec, payload, p->payload, where, p->normal, NULL);
}

static void feed(Channel *c, const uint8_t *data, size_t size)
{
    Multifd m;

    multifd_init(&m);
    for (;;) {
        void *to;
        size_t n = multifd_wants(&m, &to);

        if (size < n) {
            return;
        }
        memcpy(to, data, n);
        data += n;
        size -= n;
        switch (multifd_got(&m, NULL)) {
        case MULTIFD_ERROR:
            return;
        case MULTIFD_HAS_PACKET:
            if (size < m.packet.payload || !packet(c, &m.packet, data)) {
                return;
            }
            data += m.packet.payload;
            size -= m.packet.payload;
            break;
        default:
            break;
        }
    }
}

static Generation *receive(Slab *slab, Generation *parent, const uint8_t *data,
                           size_t size)
{
    Channel c = { .g = generation_new(layout(), slab, parent, NULL) };

    feed(&c, data, size);
    slab_close(slab, &c.cursor);
    codec_free(c.codec);
    generation_seal(c.g, parent);
    for (uint64_t i = 0; i < 3; i++) {
        const volatile uint8_t *page = generation_page(c.g, 1, i);

        g_assert(!page || page[PAGE_SIZE - 1] == page[PAGE_SIZE - 1]);
    }
    return c.g;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Budget budget = { .limit = MEMORY };
    Slab *slab = slab_new(MEMORY, &budget, NULL);
    Generation *a, *b = NULL;

    if (size) {
        a = receive(slab, NULL, data + 1, size - 1);
        if (data[0] & 1) {              /* the same again, over it */
            b = receive(slab, a, data + 1, size - 1);
        }
        generation_unref(a);
        generation_unref(b);
        g_assert(slab_used(slab) == 0);
    }
    slab_leave(slab);
    return 0;
}
