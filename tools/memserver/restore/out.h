/*
 * What is to be written to a connection that does not block
 *
 * Small things are copied, pages are referred to.  Nothing is added before all
 * that was added earlier has been written: so a request never waits behind
 * more than one message.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_OUT_H
#define RESTORE_OUT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "target.h"

typedef struct Out Out;

Out *out_new(void);
void out_free(Out *o);

void out_u8(Out *o, uint8_t v);
void out_be16(Out *o, uint16_t v);
void out_be32(Out *o, uint32_t v);
void out_be64(Out *o, uint64_t v);
void out_copy(Out *o, const void *data, size_t size);
/* A name behind its length in one byte */
void out_name(Out *o, const char *name);
/* @data must stay until it has been written. */
void out_refer(Out *o, const void *data, size_t size);

/* Bytes that were added and are not written yet. */
uint64_t out_pending(const Out *o);

/* Writes what @target takes.  False: an error. */
bool out_write(Out *o, Target *target, GError **errp);

#endif
