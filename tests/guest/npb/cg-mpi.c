/*
 * CG over several processes, by MPI: smallest eigenvalue of a sparse matrix
 *
 * Each process has some rows of the matrix, and these elements of the vectors.
 * In each step of the solver all of them send each other their part of the
 * direction of search, and add two numbers up.  So there are some thousand
 * short exchanges a repetition, and each process waits for all others in each.
 *
 * Built where it is used, against the MPI library that is there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <mpi.h>
#include <math.h>

#include "cg-matrix.h"
#include "processes.h"

static const CgClass *class;
static int processes;
static CgMatrix matrix;                 /* my rows */
static int *first, *rows;               /* of each process */
static double *p;                       /* all of it */
static double *x, *z, *q, *r;           /* mine */

static void setup(char name)
{
    int me, i;

    processes_start(&me, &processes);
    class = cg_class(name);
    if (processes > class->n) {
        npb_fail("too many processes");
    }
    first = npb_alloc(processes, sizeof(*first));
    rows = npb_alloc(processes, sizeof(*rows));
    for (i = 0; i < processes; i++) {
        first[i] = (int64_t)class->n * i / processes;
        rows[i] = (int64_t)class->n * (i + 1) / processes - first[i];
    }
    matrix.first = first[me];
    matrix.rows = rows[me];
    cg_make_matrix(class, &matrix);
    p = npb_alloc(class->n, sizeof(*p));
    x = npb_alloc(matrix.rows, sizeof(*x));
    z = npb_alloc(matrix.rows, sizeof(*z));
    q = npb_alloc(matrix.rows, sizeof(*q));
    r = npb_alloc(matrix.rows, sizeof(*r));
}

/* To each number of @num, add those of all processes */
static void add_up(double *sums, int num)
{
    MPI_Allreduce(MPI_IN_PLACE, sums, num, MPI_DOUBLE, MPI_SUM,
                  MPI_COMM_WORLD);
}

/* Everybody gets all of p */
static void share(void)
{
    MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, p, rows, first,
                   MPI_DOUBLE, MPI_COMM_WORLD);
}

/* Solve A z = x, nearly */
static void solve(void)
{
    double *mine = p + matrix.first;
    double rho = 0, old_rho, product, alpha;
    int step, i;

    for (i = 0; i < matrix.rows; i++) {
        z[i] = 0;
        r[i] = mine[i] = x[i];
        rho += r[i] * r[i];
    }
    add_up(&rho, 1);
    for (step = 0; step < CG_INNER; step++) {
        share();
        product = cg_multiply(&matrix, q, p);
        add_up(&product, 1);
        alpha = rho / product;
        old_rho = rho;
        rho = 0;
        for (i = 0; i < matrix.rows; i++) {
            z[i] += alpha * mine[i];
            r[i] -= alpha * q[i];
            rho += r[i] * r[i];
        }
        add_up(&rho, 1);
        for (i = 0; i < matrix.rows; i++) {
            mine[i] = r[i] + rho / old_rho * mine[i];
        }
    }
}

static void run(void)
{
    double zeta = 0;
    int iteration, i;

    for (i = 0; i < matrix.rows; i++) {
        x[i] = 1;
    }
    for (iteration = 1; iteration <= class->iterations; iteration++) {
        double sums[2] = { 0, 0 };      /* x * z, z * z */

        solve();
        for (i = 0; i < matrix.rows; i++) {
            sums[0] += x[i] * z[i];
            sums[1] += z[i] * z[i];
        }
        add_up(sums, 2);
        zeta = class->shift + 1 / sums[0];
        for (i = 0; i < matrix.rows; i++) {
            x[i] = z[i] / sqrt(sums[1]);
        }
        npb_iteration(iteration, class->iterations, matrix.value,
                      matrix.row_start[matrix.rows] * sizeof(*matrix.value));
    }
    npb_verify("zeta", zeta, class->zeta, CG_EPSILON);
}

static const NpbKernel kernel = {
    "CG", "SWABC", setup, run, processes_any, processes_end,
};

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
