/*
 * Erasure code: from k pieces of data m more, of which any k are enough
 *
 * With one piece more that is their XOR.  With more it is a Reed-Solomon code
 * with Cauchy's matrix, every square part of which can be inverted.  ISA-L
 * does the arithmetic, in GF(256).
 *
 * Pieces have numbers: those of data from 0 on, parities from k on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_ERASURE_H
#define MEMSERVER_ERASURE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "peer-proto.h"

#define ERASURE_MAX_DATA PARTS_MAX
/* GF(256) allows 256 pieces in all; each costs a server. */
#define ERASURE_MAX_PARITY 8

/* Bytes of ISA-L's table for a coefficient */
#define ERASURE_TABLE 32

/* How one piece is made of @data others; made once, used for each page. */
typedef struct Recipe {
    unsigned data;
    uint8_t tables[ERASURE_MAX_DATA * ERASURE_TABLE];
} Recipe;

/* Whether there can be so many pieces: fewer parities than data. */
bool erasure_possible(uint64_t data, uint64_t parity);

/* Parity number @index, from 0 on, of all data in their order. */
void erasure_parity(Recipe *r, unsigned data, unsigned parity, unsigned index);

/*
 * Piece of data number @lost of the pieces @have, @data different numbers.
 * False: this cannot be; with numbers that are different and possible it can.
 */
bool erasure_repair(Recipe *r, unsigned data, unsigned parity,
                    const unsigned *have, unsigned lost);

/* @from: as many pages as the recipe has data. */
void erasure_make(const Recipe *r, uint8_t *const *from, uint8_t *page);

#endif
