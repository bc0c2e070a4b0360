/*
 * One checkpoint, to be restored from: RAM and device state, read only
 *
 * Where its pages are is the maker's business (MemImageOps).  An image never
 * changes, and lives as long as somebody has a reference: a restore pins its
 * checkpoint by it.  All functions may be called by any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_IMAGE_H
#define MEMSERVER_IMAGE_H

#include "layout.h"

typedef struct MemImage MemImage;

/*
 * Which checkpoint it is.  Names are given by those who keep it; the sums are
 * made from the content.  Two images of which all four are the same are the
 * same generation of the same virtual machine.
 */
typedef struct MemImageId {
    const char *vm, *generation;        /* "": not known */
    const char *layout;                 /* SHA-256 of machine and RAM blocks */
    const char *state;                  /* SHA-256 of the device state */
} MemImageId;

typedef struct MemImageOps {
    /* 4096 bytes; NULL: a zero page.  @index < layout_pages(block). */
    const void *(*page)(void *opaque, unsigned block, uint64_t index);
    void (*free)(void *opaque);
} MemImageOps;

/*
 * Copies @layout and the names, which may be NULL.  @state, the device state
 * from behind RAM's END section up to the end of the stream, must live as
 * long as @opaque.  On an error @opaque is still the caller's.
 */
MemImage *mem_image_new(const MemImageOps *ops, void *opaque,
                        const Layout *layout, const void *state, size_t size,
                        const char *vm, const char *generation,
                        GError **errp);

/*
 * One part of a checkpoint at several servers: what page() has not is zero, or
 * another part's.  There is no device state but in the first part.
 */
MemImage *mem_image_new_part(const MemImageOps *ops, void *opaque,
                             const Layout *layout, const void *state,
                             size_t size, const char *vm,
                             const char *generation, GError **errp);

/*
 * From a file that QEMU has written with capability mapped-ram.  The file must
 * not be written to any more; whether it is removed does not matter.  @fd is
 * not taken over.
 */
MemImage *mem_image_from_file(int fd, const char *vm, const char *generation,
                              GError **errp);

/*
 * From a file that has one part; no other is taken.  Its stream names a
 * capability that no QEMU has: none restores a part as if it were all.
 */
#define PART_CAPABILITY "tlm-part"
MemImage *mem_image_part_from_file(int fd, const char *vm,
                                   const char *generation, GError **errp);

MemImage *mem_image_ref(MemImage *m);
void mem_image_unref(MemImage *m);

const Layout *mem_image_layout(const MemImage *m);
const MemImageId *mem_image_id(const MemImage *m);
/*
 * All of it in one line: whoever goes on with a restore must have an image
 * with the same.
 */
char *mem_image_ticket(const MemImage *m);

const void *mem_image_page(const MemImage *m, unsigned block, uint64_t index);

/* With and without what a stream ends with: EOF and the vmdesc. */
const void *mem_image_state(const MemImage *m, size_t *size);
const void *mem_image_devices(const MemImage *m, size_t *size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(MemImage, mem_image_unref)

#endif
