/*
 * Erasure code: from k pieces of data m more, of which any k are enough
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <isa-l/erasure_code.h>
#include <string.h>

#include "erasure.h"

#define PIECES_MAX (ERASURE_MAX_DATA + ERASURE_MAX_PARITY)

bool erasure_possible(uint64_t data, uint64_t parity)
{
    return data >= 2 && data <= ERASURE_MAX_DATA && parity >= 1 &&
        parity <= ERASURE_MAX_PARITY && parity < data;
}

/* A row for each piece: what it is made of. */
static void fill(uint8_t *matrix, unsigned data, unsigned parity)
{
    gf_gen_cauchy1_matrix(matrix, data + parity, data);
    if (parity == 1) {
        memset(matrix + data * data, 1, data);
    }
}

static void make_recipe(Recipe *r, unsigned data, const uint8_t *row)
{
    uint8_t coefficients[ERASURE_MAX_DATA];

    memcpy(coefficients, row, data);
    r->data = data;
    ec_init_tables(data, 1, coefficients, r->tables);
}

void erasure_parity(Recipe *r, unsigned data, unsigned parity, unsigned index)
{
    uint8_t matrix[PIECES_MAX * ERASURE_MAX_DATA];

    g_assert(erasure_possible(data, parity) && index < parity);
    fill(matrix, data, parity);
    make_recipe(r, data, matrix + (data + index) * data);
}

bool erasure_repair(Recipe *r, unsigned data, unsigned parity,
                    const unsigned *have, unsigned lost)
{
    uint8_t matrix[PIECES_MAX * ERASURE_MAX_DATA];
    uint8_t there[ERASURE_MAX_DATA * ERASURE_MAX_DATA];
    uint8_t inverse[ERASURE_MAX_DATA * ERASURE_MAX_DATA];

    g_assert(erasure_possible(data, parity) && lost < data);
    fill(matrix, data, parity);
    for (unsigned i = 0; i < data; i++) {
        g_assert(have[i] < data + parity);
        memcpy(there + i * data, matrix + have[i] * data, data);
    }
    if (gf_invert_matrix(there, inverse, data)) {
        return false;
    }
    make_recipe(r, data, inverse + lost * data);
    return true;
}

void erasure_make(const Recipe *r, uint8_t *const *from, uint8_t *page)
{
    ec_encode_data(PAGE_SIZE, r->data, 1, (uint8_t *)r->tables,
                   (uint8_t **)from, &page);
}
