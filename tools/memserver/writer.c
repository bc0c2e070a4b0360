/*
 * Writes a checkpoint to the disk
 *
 * Several threads write a chunk each: the checksums take longer than the
 * copying.  io_uring would save system calls, of which there is one for each
 * MiB: not worth it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "mapped.h"
#include "sums.h"
#include "vmdir.h"
#include "writer.h"

/* One write; a multiple of MANIFEST_BLOCK. */
#define WRITE_SIZE (1u << 20)

typedef struct Writer {
    int fd;
    const Mapped *file;
    GArray *sums;                       /* ManifestSum */
} Writer;

static bool write_all(int fd, const uint8_t *data, size_t size, uint64_t at,
                      GError **errp)
{
    while (size) {
        ssize_t n = pwrite(fd, data, size, at);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return ms_fail(errp, "cannot write the checkpoint: %s",
                           g_strerror(n ? errno : ENOSPC));
        }
        data += n;
        at += n;
        size -= n;
    }
    return true;
}

/* @size bytes at @at: blocks that are not zero are summed up and written. */
static bool write_part(Writer *w, Sum *sum, uint8_t *buffer, uint64_t at,
                       size_t size, GError **errp)
{
    size_t from = 0, until = 0;         /* of @buffer: to be written */

    for (size_t i = 0; i < size; i += MANIFEST_BLOCK) {
        size_t n = MIN(MANIFEST_BLOCK, size - i);

        if (!mapped_read(w->file, at + i, buffer + i, n)) {
            continue;
        }
        sum_block(sum, at + i, buffer + i, n);
        if (until != i) {
            if (!write_all(w->fd, buffer + from, until - from, at + from,
                           errp)) {
                return false;
            }
            from = i;
        }
        until = i + n;
    }
    return write_all(w->fd, buffer + from, until - from, at + from, errp);
}

static bool write_chunk(void *opaque, size_t number, GError **errp)
{
    Writer *w = opaque;
    uint64_t at = (uint64_t)number * MANIFEST_CHUNK;
    uint64_t end = MIN(at + MANIFEST_CHUNK, mapped_size(w->file));
    g_autofree uint8_t *buffer = g_malloc(WRITE_SIZE);
    Sum *sum = sum_new();
    bool ok = true;

    for (; ok && at < end; at += WRITE_SIZE) {
        ok = write_part(w, sum, buffer, at, MIN(WRITE_SIZE, end - at), errp);
    }
    sum_end(sum, g_array_index(w->sums, ManifestSum, number));
    return ok;
}

static bool write_file(Writer *w, Checkpoint *c, unsigned threads,
                       GError **errp)
{
    uint64_t size = mapped_size(w->file);
    struct stat st;

    g_array_set_size(w->sums, size / MANIFEST_CHUNK + !!(size % MANIFEST_CHUNK));
    if (ftruncate(w->fd, size)) {
        return ms_fail(errp, "cannot make a file of %" PRIu64 " bytes: %s",
                       size, g_strerror(errno));
    }
    if (!sums_for_each_chunk(size, threads, write_chunk, w, errp)) {
        return false;
    }
    if (fdatasync(w->fd) || fstat(w->fd, &st)) {
        return ms_fail(errp, "cannot bring the checkpoint to the disk: %s",
                       g_strerror(errno));
    }
    c->file.size = size;
    c->file.allocated = (uint64_t)st.st_blocks * 512;
    return true;
}

static bool sync_directory(const char *dir, GError **errp)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && !fsync(fd);

    if (!ok) {
        ms_fail(errp, "%s: cannot sync: %s", dir, g_strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static bool rename_file(const char *from, const char *to, const char *dir,
                        GError **errp)
{
    if (rename(from, to)) {
        return ms_fail(errp, "%s: cannot rename: %s", from, g_strerror(errno));
    }
    return sync_directory(dir, errp);
}

/*
 * A manifest whose file was lost is left alone until a checkpoint of its name
 * comes.  It must be gone before the new file is there, which has its size.
 */
static bool remove_manifest(const char *path, const char *dir, GError **errp)
{
    if (!unlink(path)) {
        return sync_directory(dir, errp);
    }
    return errno == ENOENT ||
           ms_fail(errp, "%s: cannot remove: %s", path, g_strerror(errno));
}

static bool write_manifest(const char *dir, const Checkpoint *c,
                           const GArray *sums, GError **errp)
{
    g_autofree char *text = manifest_compose(c, (void *)sums->data, sums->len);
    g_autofree char *draft = g_strdup_printf("%s/.%s.json.new", dir, c->name);
    g_autofree char *path = g_strdup_printf("%s/%s.json", dir, c->name);
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write_all(fd, (void *)text, strlen(text), 0, errp) &&
        !fdatasync(fd);

    if (fd >= 0) {
        close(fd);
    }
    if (!ok && !*errp) {
        ms_fail(errp, "%s: cannot write: %s", draft, g_strerror(errno));
    }
    if (!ok || !rename_file(draft, path, dir, errp)) {
        unlink(draft);
        remove_manifest(path, dir, NULL);
        return false;
    }
    return true;
}

GArray *writer_write(const char *dir, Checkpoint *c, uint64_t limit,
                     unsigned threads, GError **errp)
{
    g_autofree char *part = g_strdup_printf("%s/%s.part", dir, c->name);
    g_autofree char *path = g_strdup_printf("%s/%s.checkpoint", dir, c->name);
    g_autofree char *manifest = g_strdup_printf("%s/%s.json", dir, c->name);
    g_autoptr(Mapped) file = mapped_new(c->generation, c->state,
                                        c->parts > 1);
    Writer w = { .file = file };
    bool ok;

    if (mapped_data(file) > limit) {
        ms_fail(errp, "the checkpoint has %" PRIu64 " MiB, of the disk "
                "quota %" PRIu64 " MiB are left", mapped_data(file) >> 20,
                limit >> 20);
        return NULL;
    }
    if (!remove_manifest(manifest, dir, errp)) {
        return NULL;
    }
    w.fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (w.fd < 0) {
        ms_fail(errp, "%s: %s", part, g_strerror(errno));
        return NULL;
    }
    w.sums = g_array_new(false, true, sizeof(ManifestSum));
    ok = write_file(&w, c, threads, errp);
    close(w.fd);
    if (!ok || !rename_file(part, path, dir, errp)) {
        unlink(part);
        unlink(path);
        g_array_unref(w.sums);
        return NULL;
    }
    return w.sums;
}

bool writer_sign(const char *dir, Checkpoint *c, const GArray *sums,
                 GError **errp)
{
    g_autofree char *path = g_strdup_printf("%s/%s.checkpoint", dir, c->name);
    g_autoptr(GError) error = NULL;

    c->file.there = (!c->claim || vmdir_mark_tentative(dir, c->name,
                                                       &error)) &&
        write_manifest(dir, c, sums, &error);
    if (!c->file.there) {
        unlink(path);
        g_propagate_error(errp, g_steal_pointer(&error));
    }
    return c->file.there;
}
