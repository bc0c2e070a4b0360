/*
 * The matrix of CG, or some of its rows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <math.h>

#include "cg-matrix.h"

#define RCOND 0.1

/*
 * Units of work, so that all of them take about the same time (under TCG, some
 * 14 ns): one for a nonzero of a product, these for one in the making, and for
 * a row in the vectors of an inner step
 */
#define SETUP_UNITS 15
#define VECTOR_UNITS 8

static const CgClass classes[] = {
    { 'S', 1400, 7, 15, 10, 8.5971775078648 },
    { 'W', 7000, 8, 15, 12, 10.362595087124 },
    { 'A', 14000, 11, 15, 20, 17.130235054029 },
    { 'B', 75000, 13, 75, 60, 22.712745482631 },
    { 'C', 150000, 15, 75, 110, 28.973605592845 },
};

const CgClass *cg_class(char name)
{
    const CgClass *class = classes;

    while (class->name != name) {
        class++;
    }
    return class;
}

/*
 * The matrix is the sum of weighted outer products of sparse random vectors
 * with themselves.  Vector i has up to @width elements, in its row of these.
 */
typedef struct Vectors {
    int width;
    int32_t *num, *where;
    double *what;
} Vectors;

static void make_vectors(const CgClass *class, Vectors *v)
{
    uint64_t state = NPB_SEED;
    int n = class->n, power = 1, i, k;

    while (power < n) {
        power *= 2;
    }
    npb_random(&state);
    for (i = 0; i < n; i++) {
        int32_t *where = v->where + (size_t)i * v->width;
        double *what = v->what + (size_t)i * v->width;
        int num = 0;

        while (num < class->nonzeros) {
            double number = npb_random(&state);
            int place = power * npb_random(&state);

            for (k = 0; k < num && where[k] != place; k++) {
                continue;
            }
            if (place < n && k == num) {
                where[num] = place;
                what[num++] = number;
            }
        }
        /* element i is always there, and 1/2 */
        for (k = 0; k < num && where[k] != i; k++) {
            continue;
        }
        where[k] = i;
        what[k] = 0.5;
        v->num[i] = k < num ? num : num + 1;
        npb_progress(class->nonzeros * class->nonzeros * SETUP_UNITS);
    }
}

/*
 * Which vectors have element j, and where: entries list[start[j]] and on, in
 * ascending order, are indices into the rows of v->what.
 */
static void transpose(const Vectors *v, int n, int64_t *start, int64_t *list)
{
    int64_t k;
    int i;

    for (i = 0; i < n; i++) {
        for (k = 0; k < v->num[i]; k++) {
            start[v->where[(size_t)i * v->width + k] + 1]++;
        }
    }
    for (i = 0; i < n; i++) {
        start[i + 1] += start[i];
    }
    for (i = n - 1; i >= 0; i--) {
        for (k = v->num[i] - 1; k >= 0; k--) {
            int64_t at = (int64_t)i * v->width + k;

            /* moves start[j + 1] down to where row j begins, for now */
            list[--start[v->where[at] + 1]] = at;
        }
    }
    for (i = 0; i < n; i++) {
        start[i] = start[i + 1];
    }
    start[n] = 0;
    for (i = 0; i < n; i++) {
        start[n] += v->num[i];
    }
}

/*
 * Row j of the matrix into @sum, which is 0 before; its columns into @used.
 * Returns how many there are.
 */
static int make_row(const CgClass *class, const Vectors *v,
                    const int64_t *start, const int64_t *list, int j,
                    double *sum, bool *is_used, int32_t *used)
{
    int num = 0, k;
    int64_t l;

    for (l = start[j]; l < start[j + 1]; l++) {
        int64_t i = list[l] / v->width;
        const int32_t *where = v->where + i * v->width;
        const double *what = v->what + i * v->width;
        double weight = pow(RCOND, (double)i / class->n) * v->what[list[l]];

        for (k = 0; k < v->num[i]; k++) {
            if (!is_used[where[k]]) {
                is_used[where[k]] = true;
                used[num++] = where[k];
            }
            sum[where[k]] += weight * what[k];
        }
    }
    sum[j] += RCOND - class->shift;
    return num;
}

/* Once to count, once to keep */
static void make_rows(const CgClass *class, const Vectors *v,
                      const int64_t *start, const int64_t *list, CgMatrix *m,
                      bool do_keep)
{
    #pragma omp parallel
    {
        double *sum = npb_scratch(class->n, sizeof(*sum));
        bool *is_used = npb_scratch(class->n, sizeof(*is_used));
        int32_t *used = npb_scratch(class->n, sizeof(*used));
        int j, k, num;

        #pragma omp for schedule(dynamic, CG_BLOCK)
        for (j = 0; j < m->rows; j++) {
            num = make_row(class, v, start, list, m->first + j, sum, is_used,
                           used);
            for (k = 0; k < num; k++) {
                if (do_keep) {
                    m->column[m->row_start[j] + k] = used[k];
                    m->value[m->row_start[j] + k] = sum[used[k]];
                }
                sum[used[k]] = 0;
                is_used[used[k]] = false;
            }
            if (!do_keep) {
                m->row_start[j + 1] = num;
            }
            npb_progress(num * SETUP_UNITS);
        }
        npb_scratch_free(sum);
        npb_scratch_free(is_used);
        npb_scratch_free(used);
    }
}

void cg_make_matrix(const CgClass *class, CgMatrix *m)
{
    int64_t *start, *list;
    Vectors v;
    int i;

    v.width = class->nonzeros + 1;
    v.num = npb_scratch(class->n, sizeof(*v.num));
    v.where = npb_scratch((size_t)class->n * v.width, sizeof(*v.where));
    v.what = npb_scratch((size_t)class->n * v.width, sizeof(*v.what));
    start = npb_scratch(class->n + 1, sizeof(*start));
    list = npb_scratch((size_t)class->n * v.width, sizeof(*list));
    m->row_start = npb_alloc(m->rows + 1, sizeof(*m->row_start));

    make_vectors(class, &v);
    transpose(&v, class->n, start, list);
    make_rows(class, &v, start, list, m, false);
    for (i = 0; i < m->rows; i++) {
        m->row_start[i + 1] += m->row_start[i];
    }
    m->column = npb_alloc(m->row_start[m->rows], sizeof(*m->column));
    m->value = npb_alloc(m->row_start[m->rows], sizeof(*m->value));
    make_rows(class, &v, start, list, m, true);

    npb_scratch_free(v.num);
    npb_scratch_free(v.where);
    npb_scratch_free(v.what);
    npb_scratch_free(start);
    npb_scratch_free(list);
}

double cg_multiply(const CgMatrix *m, double *to, const double *from)
{
    double product = 0;
    int block, i;

    #pragma omp parallel for private(i) reduction(+: product)
    for (block = 0; block < m->rows; block += CG_BLOCK) {
        int end = block + CG_BLOCK < m->rows ? block + CG_BLOCK : m->rows;
        int64_t k;

        for (i = block; i < end; i++) {
            double sum = 0;

            for (k = m->row_start[i]; k < m->row_start[i + 1]; k++) {
                sum += m->value[k] * from[m->column[k]];
            }
            to[i] = sum;
            product += sum * from[m->first + i];
        }
        npb_progress(m->row_start[end] - m->row_start[block] +
                     (end - block) * VECTOR_UNITS);
    }
    return product;
}
