/*
 * An image from a file that QEMU has written with capability mapped-ram
 *
 * See QEMU's docs/devel/migration/mapped-ram.rst.  The file may come from
 * anyone: each offset and length is compared with the file before use.  Pages
 * are read through a mapping, by system calls that fail (EFAULT) rather than
 * raise SIGBUS if somebody has truncated the file meanwhile; all else is
 * copied beforehand.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "be.h"
#include "error.h"
#include "image.h"

#define FILE_MAGIC 0x5145564d
#define FILE_VERSION 3
#define SECTION_START 1
#define SECTION_PART 2
#define SECTION_END 3
#define SECTION_SUBSECTION 5
#define SECTION_CONFIGURATION 7
#define SECTION_COMMAND 8
#define SECTION_FOOTER 0x7e
#define COMMAND_SWITCHOVER_START 11
#define RAM_VERSION 4
#define RAM_MEM_SIZE 4
#define RAM_EOS 0x10
#define RAM_MULTIFD_FLUSH 0x200
#define MAPPED_RAM_VERSION 1

/* QEMU's limit for a machine's name is the same. */
#define MACHINE_MAX 256

/* x86-64's physical address space; keeps sums of lengths from wrapping. */
#define MAX_FILE (1ULL << 52)

/* Far more than any machine's devices have; vRAM is a RAM block. */
#define MAX_STATE (1ULL << 30)

typedef struct FileBlock {
    uint8_t *bitmap;                    /* bit: the page has data */
    uint64_t pages_at;
} FileBlock;

typedef struct ImageFile {
    uint8_t *map;
    uint64_t size;
    GArray *blocks;                     /* FileBlock */
    uint8_t *state;
    /* while it is read */
    int fd;
    uint64_t at;
    bool part;                          /* it says that it is one */
} ImageFile;

static const void *file_page(void *opaque, unsigned block, uint64_t index)
{
    ImageFile *f = opaque;
    const FileBlock *b = &g_array_index(f->blocks, FileBlock, block);

    if (!(b->bitmap[index / 8] >> index % 8 & 1)) {
        return NULL;
    }
    return f->map + b->pages_at + (index << PAGE_BITS);
}

static void file_free(void *opaque)
{
    ImageFile *f = opaque;

    for (unsigned i = 0; i < f->blocks->len; i++) {
        g_free(g_array_index(f->blocks, FileBlock, i).bitmap);
    }
    g_array_unref(f->blocks);
    g_free(f->state);
    if (f->map) {
        munmap(f->map, f->size);
    }
    g_free(f);
}

static const MemImageOps file_ops = { .page = file_page, .free = file_free };

static bool read_at(ImageFile *f, uint64_t at, void *to, size_t size,
                    GError **errp)
{
    if (at > f->size || size > f->size - at) {
        return ms_fail(errp, "it ends before its offset %" PRIu64, at + size);
    }
    while (size) {
        ssize_t n = pread(f->fd, to, size, at);

        if (n <= 0) {
            if (n < 0 && errno == EINTR) {
                continue;
            }
            return ms_fail(errp, "reading at offset %" PRIu64 ": %s", at,
                           n ? g_strerror(errno) : "it has been truncated");
        }
        to = (char *)to + n;
        at += n;
        size -= n;
    }
    return true;
}

static bool read_next(ImageFile *f, void *to, size_t size, GError **errp)
{
    if (!read_at(f, f->at, to, size, errp)) {
        return false;
    }
    f->at += size;
    return true;
}

/* A big-endian number of @size bytes. */
static bool read_uint(ImageFile *f, unsigned size, uint64_t *v, GError **errp)
{
    uint8_t bytes[8];

    if (!read_next(f, bytes, size, errp)) {
        return false;
    }
    *v = 0;
    for (unsigned i = 0; i < size; i++) {
        *v = *v << 8 | bytes[i];
    }
    return true;
}

static bool expect(ImageFile *f, unsigned size, uint64_t want,
                   const char *what, GError **errp)
{
    uint64_t v;

    if (!read_uint(f, size, &v, errp)) {
        return false;
    }
    if (v != want) {
        return ms_fail(errp, "%s is 0x%" PRIx64 ", not 0x%" PRIx64 ", at "
                       "offset %" PRIu64, what, v, want, f->at - size);
    }
    return true;
}

/* A name behind its length, which is one byte; printable ASCII. */
static bool read_name(ImageFile *f, char *name, GError **errp)
{
    uint64_t size;

    if (!read_uint(f, 1, &size, errp) || !read_next(f, name, size, errp)) {
        return false;
    }
    name[size] = 0;
    for (uint64_t i = 0; i < size; i++) {
        if (!g_ascii_isprint(name[i])) {
            return ms_fail(errp, "a name that is not ASCII, before offset "
                           "%" PRIu64, f->at);
        }
    }
    return true;
}

/* The capabilities with which it was saved: dropped, for it is read here. */
static bool read_capabilities(ImageFile *f, GError **errp)
{
    uint64_t count;
    char name[BLOCK_NAME_MAX + 1];

    if (!read_uint(f, 4, &count, errp)) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (!read_name(f, name, errp)) {
            return false;
        }
        if (!strcmp(name, PART_CAPABILITY)) {
            f->part = true;
        } else if (strcmp(name, "mapped-ram")) {
            return ms_fail(errp, "it needs capability %s, which this server "
                           "does not know", name);
        }
    }
    return true;
}

static bool read_subsection(ImageFile *f, Layout *l, GError **errp)
{
    static const struct {
        const char *name;
        unsigned size;
    } known[] = {
        { "configuration/uuid", 16 },
        { "configuration/target-page-bits", 4 },
    };
    uint64_t from = f->at - 1, version;
    char name[BLOCK_NAME_MAX + 1];
    uint8_t *raw;

    if (!read_name(f, name, errp) || !read_uint(f, 4, &version, errp)) {
        return false;
    }
    if (!strcmp(name, "configuration/capabilities")) {
        return read_capabilities(f, errp);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++) {
        if (!strcmp(name, known[i].name)) {
            unsigned size = f->at - from + known[i].size;
            unsigned old = l->subsections->len;

            g_byte_array_set_size(l->subsections, old + size);
            raw = l->subsections->data + old;
            f->at = from;
            return read_next(f, raw, size, errp);
        }
    }
    return ms_fail(errp, "unknown subsection %s", name);
}

/* From the beginning up to section "ram". */
static bool read_configuration(ImageFile *f, Layout *l, GError **errp)
{
    uint64_t size, kind, sections = 0;

    if (!expect(f, 4, FILE_MAGIC, "the magic number", errp) ||
        !expect(f, 4, FILE_VERSION, "the version", errp) ||
        !expect(f, 1, SECTION_CONFIGURATION, "the first section", errp) ||
        !read_uint(f, 4, &size, errp)) {
        return false;
    }
    if (!size || size > MACHINE_MAX) {
        return ms_fail(errp, "a machine's name of %" PRIu64 " bytes", size);
    }
    l->machine = g_malloc0(size + 1);
    if (!read_next(f, l->machine, size, errp)) {
        return false;
    }
    for (uint64_t i = 0; i < size; i++) {
        if (!g_ascii_isgraph(l->machine[i])) {
            return ms_fail(errp, "a machine's name that is not ASCII");
        }
    }
    while (read_uint(f, 1, &kind, errp)) {
        if (kind == SECTION_START) {
            return true;
        }
        if (kind != SECTION_SUBSECTION || ++sections > 16) {
            return ms_fail(errp, "section type %" PRIu64 " before the RAM",
                           kind);
        }
        if (!read_subsection(f, l, errp)) {
            return false;
        }
    }
    return false;
}

static bool read_block(ImageFile *f, Layout *l, uint64_t left, GError **errp)
{
    uint64_t bitmap_at;
    LayoutBlock lb = { 0 };
    FileBlock fb = { 0 };

    if (!read_name(f, lb.name, errp) || !read_uint(f, 8, &lb.length, errp)) {
        return false;
    }
    if (!layout_takes(l, &lb, left)) {
        return ms_fail(errp, "RAM block '%s' of %" PRIu64 " bytes: not "
                       "possible", lb.name, lb.length);
    }
    if (!expect(f, 4, MAPPED_RAM_VERSION, "mapped-ram's version", errp) ||
        !expect(f, 8, PAGE_SIZE, "the page size", errp) ||
        !read_uint(f, 8, &bitmap_at, errp) ||
        !read_uint(f, 8, &fb.pages_at, errp)) {
        return false;
    }
    if (fb.pages_at % PAGE_SIZE || fb.pages_at < f->at ||
        fb.pages_at > f->size || lb.length > f->size - fb.pages_at) {
        return ms_fail(errp, "RAM block '%s' lies outside of the file",
                       lb.name);
    }
    f->at = fb.pages_at + lb.length;

    size_t size = ((lb.length >> PAGE_BITS) + 63) / 64 * 8;

    fb.bitmap = g_try_malloc(size);
    if (!fb.bitmap) {
        return ms_fail(errp, "no memory for a bitmap of %zu bytes", size);
    }
    if (!read_at(f, bitmap_at, fb.bitmap, size, errp)) {
        g_free(fb.bitmap);
        return false;
    }
    g_array_append_val(f->blocks, fb);
    g_array_append_val(l->blocks, lb);
    l->total += lb.length;
    return true;
}

static bool read_ram_words(ImageFile *f, Layout *l, GError **errp)
{
    uint64_t word, flags, left;

    while (read_uint(f, 8, &word, errp)) {
        flags = word % PAGE_SIZE;
        left = word - flags;
        switch (flags) {
        case RAM_EOS:
            return expect(f, 1, SECTION_FOOTER, "the section's footer",
                          errp) &&
                   expect(f, 4, l->ram_id, "the footer's section", errp);
        case RAM_MULTIFD_FLUSH:
            break;
        case RAM_MEM_SIZE:
            for (; left; left -= g_array_index(l->blocks, LayoutBlock,
                                               l->blocks->len - 1).length) {
                if (!read_block(f, l, left, errp)) {
                    return false;
                }
            }
            break;
        default:
            return ms_fail(errp, "RAM flags 0x%" PRIx64 ": not mapped-ram",
                           flags);
        }
    }
    return false;
}

/* From section "ram" up to the device state. */
static bool read_ram(ImageFile *f, Layout *l, GError **errp)
{
    uint64_t id, kind;
    char name[BLOCK_NAME_MAX + 1];

    if (!read_uint(f, 4, &id, errp) || !read_name(f, name, errp)) {
        return false;
    }
    if (strcmp(name, "ram")) {
        return ms_fail(errp, "the state of '%s' comes before the RAM: such "
                       "devices are not supported", name);
    }
    l->ram_id = id;
    if (!expect(f, 4, 0, "RAM's instance", errp) ||
        !expect(f, 4, RAM_VERSION, "RAM's version", errp) ||
        !read_ram_words(f, l, errp)) {
        return false;
    }
    if (!layout_num_blocks(l)) {
        return ms_fail(errp, "it has no RAM");
    }
    while (read_uint(f, 1, &kind, errp)) {
        if (kind == SECTION_COMMAND) {
            if (!expect(f, 2, COMMAND_SWITCHOVER_START, "a command", errp) ||
                !expect(f, 2, 0, "a command's length", errp)) {
                return false;
            }
            continue;
        }
        if (kind != SECTION_PART && kind != SECTION_END) {
            return ms_fail(errp, "section type %" PRIu64 " before the end of "
                           "the RAM: such devices are not supported", kind);
        }
        if (!expect(f, 4, l->ram_id, "the section (another device saves in "
                    "several steps)", errp) ||
            !read_ram_words(f, l, errp)) {
            return false;
        }
        if (kind == SECTION_END) {
            return true;
        }
    }
    return false;
}

static MemImage *read_all(ImageFile *f, Layout *l, bool part, const char *vm,
                          const char *generation, GError **errp)
{
    uint64_t size;

    if (!read_configuration(f, l, errp)) {
        return NULL;
    }
    if (f->part != part) {
        ms_fail(errp, part ? "it is not one part of a checkpoint, but a whole "
                "one" : "it is one part of a checkpoint that is at several "
                "servers: they restore it together");
        return NULL;
    }
    if (!read_ram(f, l, errp)) {
        return NULL;
    }
    size = f->size - f->at;
    if (size > MAX_STATE) {
        ms_fail(errp, "%" PRIu64 " bytes of device state", size);
        return NULL;
    }
    f->state = g_try_malloc(size ?: 1);
    if (!f->state) {
        ms_fail(errp, "no memory for %" PRIu64 " bytes of device state", size);
        return NULL;
    }
    if (!read_next(f, f->state, size, errp)) {
        return NULL;
    }
    f->map = mmap(NULL, f->size, PROT_READ, MAP_SHARED, f->fd, 0);
    if (f->map == MAP_FAILED) {
        f->map = NULL;
        ms_fail(errp, "mmap: %s", g_strerror(errno));
        return NULL;
    }
    return part ? mem_image_new_part(&file_ops, f, l, f->state, size, vm,
                                     generation, errp)
                : mem_image_new(&file_ops, f, l, f->state, size, vm,
                                generation, errp);
}

static MemImage *from_file(int fd, bool part, const char *vm,
                           const char *generation, GError **errp)
{
    g_autoptr(Layout) l = layout_new();
    ImageFile *f;
    MemImage *m = NULL;
    struct stat st;

    if (fstat(fd, &st)) {
        ms_fail(errp, "fstat: %s", g_strerror(errno));
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE) {
        ms_fail(errp, "no checkpoint: not a file, or one of an impossible "
                "size");
        return NULL;
    }
    f = g_new0(ImageFile, 1);
    f->fd = fd;
    f->size = st.st_size;
    f->blocks = g_array_new(false, false, sizeof(FileBlock));
    m = read_all(f, l, part, vm, generation, errp);
    if (!m) {
        g_prefix_error(errp, part ? "not a part of a checkpoint: "
                       : "not a checkpoint that QEMU restores: ");
        file_free(f);
    }
    return m;
}

MemImage *mem_image_from_file(int fd, const char *vm, const char *generation,
                              GError **errp)
{
    return from_file(fd, false, vm, generation, errp);
}

MemImage *mem_image_part_from_file(int fd, const char *vm,
                                   const char *generation, GError **errp)
{
    return from_file(fd, true, vm, generation, errp);
}
