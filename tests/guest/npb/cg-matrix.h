/*
 * The matrix of CG, or some of its rows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NPB_CG_MATRIX_H
#define NPB_CG_MATRIX_H

#include "common.h"

#define CG_INNER 25             /* steps of the solver */
#define CG_BLOCK 64             /* rows between two reports of progress */
#define CG_EPSILON 1e-10        /* of the result, as published */

typedef struct CgClass {
    char name;
    int n, nonzeros, iterations;
    double shift, zeta;         /* zeta is the published result */
} CgClass;

/* Row @first + i is at row_start[i] and on */
typedef struct CgMatrix {
    int first, rows;
    int64_t *row_start;
    int32_t *column;
    double *value;
} CgMatrix;

const CgClass *cg_class(char name);

/* @m says which rows */
void cg_make_matrix(const CgClass *class, CgMatrix *m);

/*
 * to = A from, for the rows that are there: @to has as many elements, @from
 * has all.  Returns their share of to * from.
 */
double cg_multiply(const CgMatrix *m, double *to, const double *from);

#endif
