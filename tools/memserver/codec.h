/*
 * Pages of a multifd channel that are compressed
 *
 * A stream of zlib or zstd goes on from packet to packet.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CODEC_H
#define MEMSERVER_CODEC_H

#include "multifd.h"

typedef struct Codec Codec;

/* @method: not MULTIFD_PLAIN */
Codec *codec_new(MultifdMethod method, GError **errp);
void codec_free(Codec *c);

/* Exactly @pages pages from exactly @size bytes. */
bool codec_unpack(Codec *c, const void *data, size_t size,
                  void *const *where, unsigned pages, GError **errp);

#endif
