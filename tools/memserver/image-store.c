/*
 * The image of a checkpoint that the store has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "error.h"
#include "image-store.h"

static const void *page(void *opaque, unsigned block, uint64_t index)
{
    Checkpoint *c = opaque;

    return generation_page(c->generation, block, index);
}

static void release(void *opaque)
{
    checkpoint_unref(opaque);
}

static MemImage *from_memory(Checkpoint *c, GError **errp)
{
    static const MemImageOps ops = { .page = page, .free = release };
    const Layout *l = generation_layout(c->generation);
    MemImage *m = c->parts > 1
        ? mem_image_new_part(&ops, c, l, c->state->data, c->state->len, c->vm,
                             c->name, errp)
        : mem_image_new(&ops, c, l, c->state->data, c->state->len, c->vm,
                        c->name, errp);

    if (m) {
        checkpoint_ref(c);
    }
    return m;
}

MemImage *mem_image_from_store(const Store *s, Checkpoint *c, GError **errp)
{
    g_autofree char *path = NULL;
    MemImage *m;
    int fd;

    if (c->generation) {
        return from_memory(c, errp);
    }
    path = store_path(s, c, "checkpoint");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        ms_fail(errp, "%s: %s", path, g_strerror(errno));
        return NULL;
    }
    m = c->parts > 1 ? mem_image_part_from_file(fd, c->vm, c->name, errp)
                     : mem_image_from_file(fd, c->vm, c->name, errp);
    close(fd);
    return m;
}
