/*
 * Pages of a multifd channel that are compressed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <zlib.h>
#include <zstd.h>

#include "codec.h"
#include "error.h"

struct Codec {
    MultifdMethod method;
    z_stream zlib;
    ZSTD_DStream *zstd;
};

/*
 * zstd needs memory for the window that the frame asks for. QEMU's levels, up
 * to 20, stay within 128 MiB on a stream of unknown length.
 */
#define ZSTD_WINDOW_LOG 27

Codec *codec_new(MultifdMethod method, GError **errp)
{
    Codec *c = g_new0(Codec, 1);
    bool ok = true;

    c->method = method;
    if (method == MULTIFD_ZLIB) {
        ok = inflateInit(&c->zlib) == Z_OK;
    } else {
        c->zstd = ZSTD_createDStream();
        ok = c->zstd && !ZSTD_isError(
            ZSTD_DCtx_setParameter(c->zstd, ZSTD_d_windowLogMax,
                                   ZSTD_WINDOW_LOG));
    }
    if (!ok) {
        ms_fail(errp, "no memory to decompress");
        codec_free(c);
        return NULL;
    }
    return c;
}

void codec_free(Codec *c)
{
    if (!c) {
        return;
    }
    if (c->method == MULTIFD_ZLIB) {
        inflateEnd(&c->zlib);
    }
    ZSTD_freeDStream(c->zstd);
    g_free(c);
}

static bool unzlib(Codec *c, void *to, GError **errp)
{
    int ret;

    c->zlib.next_out = to;
    c->zlib.avail_out = PAGE_SIZE;
    do {
        uInt before_in = c->zlib.avail_in, before_out = c->zlib.avail_out;

        ret = inflate(&c->zlib, Z_SYNC_FLUSH);
        if (before_in == c->zlib.avail_in && before_out == c->zlib.avail_out) {
            break;
        }
    } while (ret == Z_OK && c->zlib.avail_out);
    if (c->zlib.avail_out) {
        return ms_fail(errp, "zlib: a page does not decompress (%s)",
                       c->zlib.msg ? c->zlib.msg : "too short");
    }
    return true;
}

/* The marker with which the sender ends the packet gives no more bytes. */
static bool zlib_ends(Codec *c, GError **errp)
{
    uint8_t more;
    int ret = Z_OK;

    c->zlib.next_out = &more;
    c->zlib.avail_out = 1;
    while (ret == Z_OK && c->zlib.avail_in && c->zlib.avail_out) {
        ret = inflate(&c->zlib, Z_SYNC_FLUSH);
    }
    return (!c->zlib.avail_in && c->zlib.avail_out) ||
        ms_fail(errp, "zlib: a packet has more than its pages");
}

static bool unzstd(Codec *c, ZSTD_inBuffer *in, void *to, GError **errp)
{
    ZSTD_outBuffer out = { .dst = to, .size = PAGE_SIZE };

    while (out.pos < out.size) {
        size_t in_before = in->pos, out_before = out.pos;
        size_t ret = ZSTD_decompressStream(c->zstd, &out, in);

        if (ZSTD_isError(ret)) {
            return ms_fail(errp, "zstd: a page does not decompress (%s)",
                           ZSTD_getErrorName(ret));
        }
        if (in->pos == in_before && out.pos == out_before) {
            return ms_fail(errp, "zstd: a packet has less than its pages");
        }
    }
    return true;
}

static bool zstd_ends(Codec *c, ZSTD_inBuffer *in, GError **errp)
{
    uint8_t more;
    ZSTD_outBuffer out = { .dst = &more, .size = 1 };

    while (in->pos < in->size && !out.pos) {
        size_t before = in->pos;
        size_t ret = ZSTD_decompressStream(c->zstd, &out, in);

        if (ZSTD_isError(ret) || in->pos == before) {
            break;
        }
    }
    return (in->pos == in->size && !out.pos) ||
        ms_fail(errp, "zstd: a packet has more than its pages");
}

bool codec_unpack(Codec *c, const void *data, size_t size,
                  void *const *where, unsigned pages, GError **errp)
{
    ZSTD_inBuffer in = { .src = data, .size = size };

    c->zlib.next_in = (void *)data;
    c->zlib.avail_in = size;
    for (unsigned i = 0; i < pages; i++) {
        if (c->method == MULTIFD_ZLIB ? !unzlib(c, where[i], errp)
                                      : !unzstd(c, &in, where[i], errp)) {
            return false;
        }
    }
    return c->method == MULTIFD_ZLIB ? zlib_ends(c, errp)
                                     : zstd_ends(c, &in, errp);
}
