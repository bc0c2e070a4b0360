/*
 * Checksums of a sparse file, as in its manifest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "be.h"
#include "error.h"
#include "sums.h"

struct Sum {
    gnutls_hash_hd_t hash;              /* quicker than GLib's by far */
};

Sum *sum_new(void)
{
    Sum *s = g_new0(Sum, 1);

    if (gnutls_hash_init(&s->hash, GNUTLS_DIG_SHA256) < 0) {
        g_error("GnuTLS has no SHA-256");
    }
    return s;
}

void sum_block(Sum *s, uint64_t offset, const void *data, size_t size)
{
    uint64_t at = GUINT64_TO_BE(offset);

    gnutls_hash(s->hash, &at, sizeof(at));
    gnutls_hash(s->hash, data, size);
}

void sum_end(Sum *s, ManifestSum result)
{
    uint8_t digest[32];

    gnutls_hash_deinit(s->hash, digest);
    for (unsigned i = 0; i < sizeof(digest); i++) {
        g_snprintf(result + 2 * i, 3, "%02x", digest[i]);
    }
    g_free(s);
}

typedef struct Walk {
    size_t chunks;
    gint next;                          /* chunk */
    SumsChunk *chunk;
    void *opaque;
    GMutex lock;
    GError *error;                      /* the first */
} Walk;

static void *walk(void *opaque)
{
    Walk *w = opaque;

    for (;;) {
        size_t number = g_atomic_int_add(&w->next, 1);
        GError *error = NULL;

        if (number >= w->chunks) {
            return NULL;
        }
        if (!w->chunk(w->opaque, number, &error)) {
            g_mutex_lock(&w->lock);
            if (!w->error) {
                w->error = g_steal_pointer(&error);
            }
            g_mutex_unlock(&w->lock);
            g_clear_error(&error);
            g_atomic_int_set(&w->next, w->chunks);
        }
    }
}

bool sums_for_each_chunk(uint64_t size, unsigned threads, SumsChunk *chunk,
                         void *opaque, GError **errp)
{
    Walk w = { .chunk = chunk, .opaque = opaque };
    g_autofree GThread **thread = g_new0(GThread *, threads);

    w.chunks = size / MANIFEST_CHUNK + !!(size % MANIFEST_CHUNK);
    g_mutex_init(&w.lock);
    for (unsigned i = 1; i < threads; i++) {
        thread[i] = g_thread_new("checksums", walk, &w);
    }
    walk(&w);
    for (unsigned i = 1; i < threads; i++) {
        g_thread_join(thread[i]);
    }
    g_mutex_clear(&w.lock);
    if (w.error) {
        g_propagate_error(errp, w.error);
        return false;
    }
    return true;
}

typedef struct Verify {
    int fd;
    uint64_t size;
    const GArray *sums;
} Verify;

static bool verify_range(Verify *v, Sum *sum, uint64_t from, uint64_t end,
                         GError **errp)
{
    g_autofree uint8_t *block = g_malloc(MANIFEST_BLOCK);
    g_autofree uint8_t *zeros = g_malloc0(MANIFEST_BLOCK);

    for (; from < end; from += MANIFEST_BLOCK) {
        size_t n = MIN(MANIFEST_BLOCK, end - from);

        if (pread(v->fd, block, n, from) != n) {
            return ms_fail(errp, "the file cannot be read at %" PRIu64, from);
        }
        if (memcmp(block, zeros, n)) {
            sum_block(sum, from, block, n);
        }
    }
    return true;
}

static bool verify_chunk(void *opaque, size_t number, GError **errp)
{
    Verify *v = opaque;
    uint64_t at = (uint64_t)number * MANIFEST_CHUNK;
    uint64_t end = MIN(at + MANIFEST_CHUNK, v->size);
    Sum *sum = sum_new();
    ManifestSum found;
    bool ok = true;

    /* Holes are zero, and need not be read. */
    while (ok && at < end) {
        off_t data = lseek(v->fd, at, SEEK_DATA);
        off_t hole = data < 0 ? data : lseek(v->fd, data, SEEK_HOLE);

        if (data < 0 || hole < 0) {
            ok = errno == ENXIO || ms_fail(errp, "the file cannot be read: %s",
                                           g_strerror(errno));
            break;
        }
        if (data >= end) {
            break;
        }
        at = MAX(at, data / MANIFEST_BLOCK * MANIFEST_BLOCK);
        hole = MIN(end, (hole + MANIFEST_BLOCK - 1) / MANIFEST_BLOCK *
                   MANIFEST_BLOCK);
        ok = verify_range(v, sum, at, hole, errp);
        at = hole;
    }
    sum_end(sum, found);
    return ok && (!strcmp(found, g_array_index(v->sums, ManifestSum, number)) ||
                  ms_fail(errp, "the file is not as it was written: chunk %zu "
                          "of 64 MiB differs", number));
}

bool sums_verify(const char *path, uint64_t size, const GArray *sums,
                 unsigned threads, GError **errp)
{
    Verify v = { .fd = open(path, O_RDONLY | O_CLOEXEC), .size = size,
                 .sums = sums };
    struct stat st;
    bool ok;

    if (v.fd < 0 || fstat(v.fd, &st)) {
        ok = ms_fail(errp, "%s: %s", path, g_strerror(errno));
    } else if (st.st_size != size) {
        ok = ms_fail(errp, "the file has %" PRIu64 " bytes instead of %"
                     PRIu64, (uint64_t)st.st_size, size);
    } else {
        ok = sums_for_each_chunk(size, threads, verify_chunk, &v, errp);
    }
    if (v.fd >= 0) {
        close(v.fd);
    }
    return ok;
}
