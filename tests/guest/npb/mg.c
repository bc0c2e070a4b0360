/*
 * MG: solve a Poisson problem on a periodic grid by multigrid V-cycles
 * (RNR-94-007, section 2.3)
 *
 * Level k has 2^k points in each direction, and a layer of ghost points around
 * them that repeats the opposite side.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <math.h>
#include <string.h>

#include "common.h"

#define CHARGES 10              /* points of v that are +1, and that are -1 */
#define MAX_LEVEL 10

/*
 * Units of work of a point, so that all of them take about the same time
 * (under TCG, some 9 ns); a coarse one for the restriction
 */
#define STENCIL_UNITS 10
#define RESTRICT_UNITS 14
#define INTERPOLATE_UNITS 3

typedef struct MgClass {
    char name;
    int levels, iterations;
    bool large;                 /* has the smoother of the large classes */
    double norm;                /* published: of the last residual */
} MgClass;

static const MgClass classes[] = {
    { 'S', 5, 4, false, 0.5307707005734e-04 },
    { 'W', 7, 4, false, 0.6467329375339e-05 },
    { 'A', 8, 4, false, 0.2433365309069e-05 },
    { 'B', 8, 20, true, 0.1800564401355e-05 },
    { 'C', 9, 20, true, 0.5706732285740e-06 },
};

typedef struct Grid {
    size_t n;                   /* points in each direction, without ghosts */
    size_t size;                /* in bytes, with ghosts */
    double *x;
} Grid;

static const MgClass *class;
static Grid v, u[MAX_LEVEL], r[MAX_LEVEL];
static double smooth[3];        /* of the centre, faces and edges */

static Grid new_grid(int level)
{
    Grid g = { .n = (size_t)1 << level };

    g.size = (g.n + 2) * (g.n + 2) * (g.n + 2) * sizeof(double);
    g.x = npb_alloc(1, g.size);
    return g;
}

static inline double *row(const Grid *g, size_t i3, size_t i2)
{
    return g->x + (i3 * (g->n + 2) + i2) * (g->n + 2);
}

static void zero(Grid *g)
{
    size_t i3, plane = (g->n + 2) * (g->n + 2) * sizeof(double);

    #pragma omp parallel for
    for (i3 = 0; i3 < g->n + 2; i3++) {
        memset(row(g, i3, 0), 0, plane);
        npb_progress((g->n + 2) * (g->n + 2));
    }
}

/* Ghost points: along rows and planes, then whole planes */
static void wrap(Grid *g)
{
    size_t n = g->n, length = (n + 2) * sizeof(double), i2, i3;

    #pragma omp parallel for private(i2)
    for (i3 = 1; i3 <= n; i3++) {
        for (i2 = 1; i2 <= n; i2++) {
            double *x = row(g, i3, i2);

            x[0] = x[n];
            x[n + 1] = x[1];
        }
        memcpy(row(g, i3, 0), row(g, i3, n), length);
        memcpy(row(g, i3, n + 1), row(g, i3, 1), length);
    }
    memcpy(row(g, 0, 0), row(g, n, 0), length * (n + 2));
    memcpy(row(g, n + 1, 0), row(g, 1, 0), length * (n + 2));
}

/*
 * All four operators are 27-point stencils, with one coefficient for the
 * centre, the 6 faces, 12 edges and 8 corners each.  These are the sums over
 * the neighbours of a row: the four rows beside it, and the four across.
 */
static void neighbours(const Grid *g, size_t i3, size_t i2,
                       double *beside, double *across)
{
    const double *up = row(g, i3 + 1, i2), *down = row(g, i3 - 1, i2);
    const double *north = row(g, i3, i2 + 1), *south = row(g, i3, i2 - 1);
    ptrdiff_t len = g->n + 2, i;

    for (i = 0; i < len; i++) {
        beside[i] = up[i] + down[i] + north[i] + south[i];
        across[i] = up[i + len] + up[i - len] + down[i + len] + down[i - len];
    }
}

/* r = @from - A u, @from being r or v */
static void residual(Grid *to, const Grid *from, const Grid *g)
{
    size_t n = g->n, i1, i2, i3;

    #pragma omp parallel for private(i1, i2)
    for (i3 = 1; i3 <= n; i3++) {
        double beside[n + 2], across[n + 2];

        for (i2 = 1; i2 <= n; i2++) {
            const double *x = row(g, i3, i2), *b = row(from, i3, i2);
            double *out = row(to, i3, i2);

            neighbours(g, i3, i2, beside, across);
            for (i1 = 1; i1 <= n; i1++) {
                /* A is -8/3, 0, 1/6, 1/12 */
                out[i1] = b[i1] + 8.0 / 3.0 * x[i1] -
                    1.0 / 6.0 * (across[i1] + beside[i1 - 1] +
                                 beside[i1 + 1]) -
                    1.0 / 12.0 * (across[i1 - 1] + across[i1 + 1]);
            }
            npb_progress(STENCIL_UNITS * n);
        }
    }
    wrap(to);
}

/* u += S r */
static void smoothen(Grid *to, const Grid *g)
{
    size_t n = g->n, i1, i2, i3;

    #pragma omp parallel for private(i1, i2)
    for (i3 = 1; i3 <= n; i3++) {
        double beside[n + 2], across[n + 2];

        for (i2 = 1; i2 <= n; i2++) {
            const double *x = row(g, i3, i2);
            double *out = row(to, i3, i2);

            neighbours(g, i3, i2, beside, across);
            for (i1 = 1; i1 <= n; i1++) {
                out[i1] += smooth[0] * x[i1] +
                    smooth[1] * (x[i1 - 1] + x[i1 + 1] + beside[i1]) +
                    smooth[2] * (across[i1] + beside[i1 - 1] +
                                 beside[i1 + 1]);
            }
            npb_progress(STENCIL_UNITS * n);
        }
    }
    wrap(to);
}

/* P: the residual of the next coarser grid, whose point i is the fine 2i */
static void restrict_grid(Grid *coarse, const Grid *fine)
{
    size_t n = coarse->n, i1, i2, i3;

    #pragma omp parallel for private(i1, i2)
    for (i3 = 1; i3 <= n; i3++) {
        double beside[fine->n + 2], across[fine->n + 2];

        for (i2 = 1; i2 <= n; i2++) {
            const double *x = row(fine, 2 * i3, 2 * i2);
            double *out = row(coarse, i3, i2);

            neighbours(fine, 2 * i3, 2 * i2, beside, across);
            for (i1 = 1; i1 <= n; i1++) {
                size_t f = 2 * i1;

                out[i1] = 0.5 * x[f] +
                    0.25 * (x[f - 1] + x[f + 1] + beside[f]) +
                    0.125 * (across[f] + beside[f - 1] + beside[f + 1]) +
                    0.0625 * (across[f - 1] + across[f + 1]);
            }
            npb_progress(RESTRICT_UNITS * n);
        }
    }
    wrap(coarse);
}

/* u += Q u of the next coarser grid: trilinear interpolation */
static void interpolate(Grid *fine, const Grid *coarse)
{
    size_t n = coarse->n, i1, i2, i3;

    #pragma omp parallel for private(i1, i2)
    for (i3 = 1; i3 <= fine->n; i3++) {
        double mean[n + 2];

        for (i2 = 1; i2 <= fine->n; i2++) {
            /* the coarse rows around, or at, this one; some are the same */
            const double *a = row(coarse, i3 / 2, i2 / 2);
            const double *b = row(coarse, i3 / 2, (i2 + 1) / 2);
            const double *c = row(coarse, (i3 + 1) / 2, i2 / 2);
            const double *d = row(coarse, (i3 + 1) / 2, (i2 + 1) / 2);
            double *out = row(fine, i3, i2);

            for (i1 = 0; i1 <= n; i1++) {
                mean[i1] = 0.25 * (a[i1] + b[i1] + c[i1] + d[i1]);
            }
            for (i1 = 1; i1 <= n; i1++) {
                out[2 * i1 - 1] += 0.5 * (mean[i1 - 1] + mean[i1]);
                out[2 * i1] += mean[i1];
            }
            npb_progress(INTERPOLATE_UNITS * fine->n);
        }
    }
    wrap(fine);
}

static void v_cycle(void)
{
    int top = class->levels, k;

    for (k = top; k > 1; k--) {
        restrict_grid(&r[k - 1], &r[k]);
    }
    zero(&u[1]);
    smoothen(&u[1], &r[1]);
    for (k = 2; k < top; k++) {
        zero(&u[k]);
        interpolate(&u[k], &u[k - 1]);
        residual(&r[k], &r[k], &u[k]);
        smoothen(&u[k], &r[k]);
    }
    interpolate(&u[top], &u[top - 1]);
    residual(&r[top], &v, &u[top]);
    smoothen(&u[top], &r[top]);
}

/* The largest values so far, in descending order */
typedef struct Best {
    double value[CHARGES];
    double *where[CHARGES];
} Best;

static void keep(Best *best, double value, double *where)
{
    int i;

    if (best->where[CHARGES - 1] && value <= best->value[CHARGES - 1]) {
        return;
    }
    for (i = CHARGES - 1; i > 0 && (!best->where[i - 1] ||
                                    value > best->value[i - 1]); i--) {
        best->value[i] = best->value[i - 1];
        best->where[i] = best->where[i - 1];
    }
    best->value[i] = value;
    best->where[i] = where;
}

/* v is +1 where the ten largest random numbers fall, -1 at the ten smallest */
static void make_charges(void)
{
    Best high = { .where = { NULL } }, low = { .where = { NULL } };
    size_t n = v.n, i1, i2, i3;
    int i;

    #pragma omp parallel private(i1, i2, i)
    {
        Best my_high = { .where = { NULL } }, my_low = { .where = { NULL } };

        #pragma omp for
        for (i3 = 1; i3 <= n; i3++) {
            for (i2 = 1; i2 <= n; i2++) {
                size_t before = ((i3 - 1) * n + i2 - 1) * n;
                uint64_t x = npb_random_skip(NPB_SEED, before);

                for (i1 = 1; i1 <= n; i1++) {
                    double value = npb_random(&x);

                    keep(&my_high, value, row(&v, i3, i2) + i1);
                    keep(&my_low, -value, row(&v, i3, i2) + i1);
                }
                npb_progress(STENCIL_UNITS * n);
            }
        }
        #pragma omp critical
        for (i = 0; i < CHARGES; i++) {
            if (my_high.where[i]) {
                keep(&high, my_high.value[i], my_high.where[i]);
                keep(&low, my_low.value[i], my_low.where[i]);
            }
        }
    }
    for (i = 0; i < CHARGES; i++) {
        *high.where[i] = 1;
        *low.where[i] = -1;
    }
    wrap(&v);
}

static void setup(char name)
{
    static const double small[] = { -3.0 / 8.0, 1.0 / 32.0, -1.0 / 64.0 };
    static const double large[] = { -3.0 / 17.0, 1.0 / 33.0, -1.0 / 61.0 };
    int k;

    for (class = classes; class->name != name; class++) {
        continue;
    }
    memcpy(smooth, class->large ? large : small, sizeof(smooth));
    v = new_grid(class->levels);
    for (k = 1; k <= class->levels; k++) {
        u[k] = new_grid(k);
        r[k] = new_grid(k);
    }
    make_charges();
}

/* Root mean square */
static double norm(const Grid *g)
{
    size_t n = g->n, i1, i2, i3;
    double sum = 0;

    #pragma omp parallel for private(i1, i2) reduction(+: sum)
    for (i3 = 1; i3 <= n; i3++) {
        for (i2 = 1; i2 <= n; i2++) {
            const double *x = row(g, i3, i2);

            for (i1 = 1; i1 <= n; i1++) {
                sum += x[i1] * x[i1];
            }
            npb_progress(INTERPOLATE_UNITS * n);
        }
    }
    return sqrt(sum / n / n / n);
}

static void run(void)
{
    Grid *top_u = &u[class->levels], *top_r = &r[class->levels];
    int i;

    zero(top_u);
    residual(top_r, &v, top_u);
    for (i = 1; i <= class->iterations; i++) {
        v_cycle();
        residual(top_r, &v, top_u);
        npb_iteration(i, class->iterations, top_u->x, top_u->size);
    }
    npb_verify("norm of the residual", norm(top_r), class->norm, 1e-8);
}

static const NpbKernel kernel = { "MG", "SWABC", setup, run };

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
