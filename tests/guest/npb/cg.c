/*
 * CG: smallest eigenvalue of a sparse matrix by the inverse power method,
 * with conjugate gradients as its solver (RNR-94-007, section 2.4)
 *
 * The matrix is read all the time and never written, the vectors are small.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <math.h>

#include "cg-matrix.h"

static const CgClass *class;
static int n;
static CgMatrix matrix;
static double *x, *z, *p, *q, *r;

static void setup(char name)
{
    class = cg_class(name);
    n = matrix.rows = class->n;
    cg_make_matrix(class, &matrix);
    x = npb_alloc(n, sizeof(*x));
    z = npb_alloc(n, sizeof(*z));
    p = npb_alloc(n, sizeof(*p));
    q = npb_alloc(n, sizeof(*q));
    r = npb_alloc(n, sizeof(*r));
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
    for (step = 0; step < CG_INNER; step++) {
        alpha = rho / cg_multiply(&matrix, q, p);
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
        npb_iteration(iteration, class->iterations, matrix.value,
                      matrix.row_start[n] * sizeof(*matrix.value));
    }
    npb_verify("zeta", zeta, class->zeta, CG_EPSILON);
}

static const NpbKernel kernel = { "CG", "SWABC", setup, run };

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
