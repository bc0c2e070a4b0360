/*
 * CG: smallest eigenvalue of a sparse matrix by the inverse power method,
 * with conjugate gradients as its solver (RNR-94-007, section 2.4)
 *
 * The matrix is read all the time and never written, the vectors are small.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <math.h>

#include "common.h"

#define INNER 25                /* steps of the solver */
#define RCOND 0.1
#define BLOCK 64                /* rows between two reports of progress */

/*
 * Units of work, so that all of them take about the same time (under TCG, some
 * 14 ns): one for a nonzero of a product, these for one in the making, and for
 * a row in the vectors of an inner step
 */
#define SETUP_UNITS 15
#define VECTOR_UNITS 8

typedef struct CgClass {
    char name;
    int n, nonzeros, iterations;
    double shift, zeta;         /* zeta is the published result */
} CgClass;

static const CgClass classes[] = {
    { 'S', 1400, 7, 15, 10, 8.5971775078648 },
    { 'W', 7000, 8, 15, 12, 10.362595087124 },
    { 'A', 14000, 11, 15, 20, 17.130235054029 },
    { 'B', 75000, 13, 75, 60, 22.712745482631 },
    { 'C', 150000, 15, 75, 110, 28.973605592845 },
};

static const CgClass *class;
static int n;

/* Row i of the matrix is at row_start[i] and on */
static int64_t *row_start;
static int32_t *column;
static double *value;
static double *x, *z, *p, *q, *r;

/*
 * The matrix is the sum of weighted outer products of sparse random vectors
 * with themselves.  Vector i has up to @width elements, in its row of these.
 */
typedef struct Vectors {
    int width;
    int32_t *num, *where;
    double *what;
} Vectors;

static void make_vectors(Vectors *v)
{
    uint64_t state = NPB_SEED;
    int power = 1, i, k;

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
static void transpose(const Vectors *v, int64_t *start, int64_t *list)
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
static int make_row(const Vectors *v, const int64_t *start,
                    const int64_t *list, int j, double *sum, bool *is_used,
                    int32_t *used)
{
    int num = 0, k;
    int64_t l;

    for (l = start[j]; l < start[j + 1]; l++) {
        int64_t i = list[l] / v->width;
        const int32_t *where = v->where + i * v->width;
        const double *what = v->what + i * v->width;
        double weight = pow(RCOND, (double)i / n) * v->what[list[l]];

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
static void make_rows(const Vectors *v, const int64_t *start,
                      const int64_t *list, bool do_keep)
{
    #pragma omp parallel
    {
        double *sum = npb_scratch(n, sizeof(*sum));
        bool *is_used = npb_scratch(n, sizeof(*is_used));
        int32_t *used = npb_scratch(n, sizeof(*used));
        int j, k, num;

        #pragma omp for schedule(dynamic, BLOCK)
        for (j = 0; j < n; j++) {
            num = make_row(v, start, list, j, sum, is_used, used);
            for (k = 0; k < num; k++) {
                if (do_keep) {
                    column[row_start[j] + k] = used[k];
                    value[row_start[j] + k] = sum[used[k]];
                }
                sum[used[k]] = 0;
                is_used[used[k]] = false;
            }
            if (!do_keep) {
                row_start[j + 1] = num;
            }
            npb_progress(num * SETUP_UNITS);
        }
        npb_scratch_free(sum);
        npb_scratch_free(is_used);
        npb_scratch_free(used);
    }
}

static void setup(char name)
{
    int64_t *start, *list;
    Vectors v;
    int i;

    for (class = classes; class->name != name; class++) {
        continue;
    }
    n = class->n;
    v.width = class->nonzeros + 1;
    v.num = npb_scratch(n, sizeof(*v.num));
    v.where = npb_scratch((size_t)n * v.width, sizeof(*v.where));
    v.what = npb_scratch((size_t)n * v.width, sizeof(*v.what));
    start = npb_scratch(n + 1, sizeof(*start));
    list = npb_scratch((size_t)n * v.width, sizeof(*list));
    row_start = npb_alloc(n + 1, sizeof(*row_start));

    make_vectors(&v);
    transpose(&v, start, list);
    make_rows(&v, start, list, false);
    for (i = 0; i < n; i++) {
        row_start[i + 1] += row_start[i];
    }
    column = npb_alloc(row_start[n], sizeof(*column));
    value = npb_alloc(row_start[n], sizeof(*value));
    make_rows(&v, start, list, true);

    npb_scratch_free(v.num);
    npb_scratch_free(v.where);
    npb_scratch_free(v.what);
    npb_scratch_free(start);
    npb_scratch_free(list);
    x = npb_alloc(n, sizeof(*x));
    z = npb_alloc(n, sizeof(*z));
    p = npb_alloc(n, sizeof(*p));
    q = npb_alloc(n, sizeof(*q));
    r = npb_alloc(n, sizeof(*r));
}

/* to = A from; returns to * from */
static double multiply(double *to, const double *from)
{
    double product = 0;
    int block, i;

    #pragma omp parallel for private(i) reduction(+: product)
    for (block = 0; block < n; block += BLOCK) {
        int end = block + BLOCK < n ? block + BLOCK : n;
        int64_t k;

        for (i = block; i < end; i++) {
            double sum = 0;

            for (k = row_start[i]; k < row_start[i + 1]; k++) {
                sum += value[k] * from[column[k]];
            }
            to[i] = sum;
            product += sum * from[i];
        }
        npb_progress(row_start[end] - row_start[block] +
                     (end - block) * VECTOR_UNITS);
    }
    return product;
}

/* Solve A z = x, nearly */
static void solve(void)
{
    double rho = 0, old_rho, alpha, beta;
    int step, i;

    #pragma omp parallel for reduction(+: rho)
    for (i = 0; i < n; i++) {
        z[i] = 0;
        r[i] = p[i] = x[i];
        rho += r[i] * r[i];
    }
    for (step = 0; step < INNER; step++) {
        alpha = rho / multiply(q, p);
        old_rho = rho;
        rho = 0;
        #pragma omp parallel for reduction(+: rho)
        for (i = 0; i < n; i++) {
            z[i] += alpha * p[i];
            r[i] -= alpha * q[i];
            rho += r[i] * r[i];
        }
        beta = rho / old_rho;
        #pragma omp parallel for
        for (i = 0; i < n; i++) {
            p[i] = r[i] + beta * p[i];
        }
    }
}

static void run(void)
{
    double zeta = 0, xz, zz;
    int iteration, i;

    for (i = 0; i < n; i++) {
        x[i] = 1;
    }
    for (iteration = 1; iteration <= class->iterations; iteration++) {
        solve();
        xz = zz = 0;
        #pragma omp parallel for reduction(+: xz, zz)
        for (i = 0; i < n; i++) {
            xz += x[i] * z[i];
            zz += z[i] * z[i];
        }
        zeta = class->shift + 1 / xz;
        #pragma omp parallel for
        for (i = 0; i < n; i++) {
            x[i] = z[i] / sqrt(zz);
        }
        npb_iteration(iteration, class->iterations, value,
                      row_start[n] * sizeof(*value));
    }
    npb_verify("zeta", zeta, class->zeta, 1e-10);
}

static const NpbKernel kernel = { "CG", "SWABC", setup, run };

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
