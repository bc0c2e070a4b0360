/*
 * One checkpoint, to be restored from
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "be.h"
#include "error.h"
#include "image.h"

#define SECTION_EOF 0
#define SECTION_VMDESC 6
#define VMDESC_HEAD 6                   /* EOF, VMDESC, be32 length */

struct MemImage {
    gint refs;
    const MemImageOps *ops;
    void *opaque;
    Layout *layout;
    const uint8_t *state;
    size_t state_size, devices_size;
    MemImageId id;
    char *names[4];                     /* what id points to */
};

/*
 * Where EOF and vmdesc begin, or -1.  The vmdesc is JSON, and ends the stream;
 * so its length says exactly how much follows.
 */
static gssize find_vmdesc(const uint8_t *p, size_t size)
{
    static const char devices[] = "\"devices\"";

    if (size < VMDESC_HEAD + sizeof(devices) || p[size - 1] != '}') {
        return -1;
    }
    for (size_t at = size - VMDESC_HEAD + 1; at-- > 0; ) {
        if (p[at] == SECTION_EOF && p[at + 1] == SECTION_VMDESC &&
            get_be32(p + at + 2) == size - at - VMDESC_HEAD) {
            return memmem(p + at, size - at, devices, strlen(devices)) ?
                   (gssize)at : -1;
        }
    }
    return -1;
}

static void sum_string(GChecksum *sum, const char *s)
{
    /* With its end: "ab" and "c" are not "a" and "bc" */
    g_checksum_update(sum, (const uint8_t *)s, strlen(s) + 1);
}

static char *sum_layout(const Layout *l)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);

    sum_string(sum, l->machine);
    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        const LayoutBlock *b = layout_block(l, i);
        uint64_t length = GUINT64_TO_BE(b->length);

        sum_string(sum, b->name);
        g_checksum_update(sum, (void *)&length, sizeof(length));
    }
    return g_strdup(g_checksum_get_string(sum));
}

MemImage *mem_image_new_part(const MemImageOps *ops, void *opaque,
                             const Layout *layout, const void *state,
                             size_t size, const char *vm,
                             const char *generation, GError **errp)
{
    gssize devices = size ? find_vmdesc(state, size) : 0;
    MemImage *m;

    if (devices < 0) {
        ms_fail(errp, "the device state does not end with its description "
                "(machine types before 2.3 have none)");
        return NULL;
    }
    m = g_new0(MemImage, 1);
    m->refs = 1;
    m->ops = ops;
    m->opaque = opaque;
    m->layout = layout_copy(layout);
    m->state = state;
    m->state_size = size;
    m->devices_size = devices;
    m->id.vm = m->names[0] = g_strdup(vm ?: "");
    m->id.generation = m->names[1] = g_strdup(generation ?: "");
    m->id.layout = m->names[2] = sum_layout(layout);
    m->id.state = m->names[3] =
        g_compute_checksum_for_data(G_CHECKSUM_SHA256, state, size);
    return m;
}

MemImage *mem_image_new(const MemImageOps *ops, void *opaque,
                        const Layout *layout, const void *state, size_t size,
                        const char *vm, const char *generation, GError **errp)
{
    if (!size) {
        ms_fail(errp, "there is no device state");
        return NULL;
    }
    return mem_image_new_part(ops, opaque, layout, state, size, vm, generation,
                              errp);
}

MemImage *mem_image_ref(MemImage *m)
{
    g_atomic_int_inc(&m->refs);
    return m;
}

void mem_image_unref(MemImage *m)
{
    if (m && g_atomic_int_dec_and_test(&m->refs)) {
        m->ops->free(m->opaque);
        layout_free(m->layout);
        for (unsigned i = 0; i < G_N_ELEMENTS(m->names); i++) {
            g_free(m->names[i]);
        }
        g_free(m);
    }
}

const Layout *mem_image_layout(const MemImage *m)
{
    return m->layout;
}

const MemImageId *mem_image_id(const MemImage *m)
{
    return &m->id;
}

char *mem_image_ticket(const MemImage *m)
{
    g_autofree char *vm = g_uri_escape_string(m->id.vm, NULL, false);
    g_autofree char *generation = g_uri_escape_string(m->id.generation, NULL,
                                                      false);

    return g_strdup_printf("%s/%s/%s/%s", vm, generation, m->id.layout,
                           m->id.state);
}

const void *mem_image_page(const MemImage *m, unsigned block, uint64_t index)
{
    return m->ops->page(m->opaque, block, index);
}

const void *mem_image_state(const MemImage *m, size_t *size)
{
    *size = m->state_size;
    return m->state;
}

const void *mem_image_devices(const MemImage *m, size_t *size)
{
    *size = m->devices_size;
    return m->state;
}
