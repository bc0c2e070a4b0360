/*
 * What SP and BT share: the flow, its right-hand side and its verification
 * (RNR-94-007, section 3)
 *
 * Both solve the same equations, of Navier and Stokes with a forcing that
 * makes a known polynomial their solution, by implicit time steps that are
 * factored into the three directions.  They differ in how a line is solved.
 *
 * Units of work are weighed so that all take about the same time under TCG.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cfd.h"

Cfd cfd;
const double cfd_d[3] = { 0.75, 0.75, 1.0 };

static const CfdClass *class;

static size_t at(int i, int j, int k)
{
    return i * cfd.stride[0] + j * cfd.stride[1] + k * cfd.stride[2];
}

/* The solution, at coordinates from 0 to 1 */
static void exact(double xi, double eta, double zeta, Flow flow)
{
    static const double ce[5][13] = {
        { 2, 0, 0, 4, 5, 3, 0.5, 0.02, 0.01, 0.03, 0.5, 0.4, 0.3 },
        { 1, 0, 0, 0, 1, 2, 3, 0.01, 0.03, 0.02, 0.4, 0.3, 0.5 },
        { 2, 2, 0, 0, 0, 2, 3, 0.04, 0.03, 0.05, 0.3, 0.5, 0.4 },
        { 2, 2, 0, 0, 0, 2, 3, 0.03, 0.05, 0.04, 0.2, 0.1, 0.3 },
        { 5, 4, 3, 2, 0.1, 0.4, 0.3, 0.05, 0.04, 0.03, 0.1, 0.3, 0.2 },
    };
    const double x[3] = { xi, eta, zeta };
    int m, d;

    for (m = 0; m < 5; m++) {
        flow[m] = ce[m][0];
        for (d = 0; d < 3; d++) {
            flow[m] += x[d] * (ce[m][1 + d] + x[d] * (ce[m][4 + d] + x[d] *
                               (ce[m][7 + d] + x[d] * ce[m][10 + d])));
        }
    }
}

/* Inside: interpolated between the exact values of the faces */
static void start_value(const double x[3], Flow flow)
{
    Flow low, high;
    int m, d;

    for (m = 0; m < 5; m++) {
        flow[m] = 1;
    }
    /* 1 - (1 - Px)(1 - Py)(1 - Pz) */
    for (d = 0; d < 3; d++) {
        double a[3] = { x[0], x[1], x[2] };

        a[d] = 0;
        exact(a[0], a[1], a[2], low);
        a[d] = 1;
        exact(a[0], a[1], a[2], high);
        for (m = 0; m < 5; m++) {
            flow[m] *= 1 - (x[d] * high[m] + (1 - x[d]) * low[m]);
        }
    }
    for (m = 0; m < 5; m++) {
        flow[m] = 1 - flow[m];
    }
}

static void set_flow(bool to_exact)
{
    int n = cfd.n, i, j, k;

    #pragma omp parallel for private(i, j)
    for (k = 0; k < n; k++) {
        for (j = 0; j < n; j++) {
            for (i = 0; i < n; i++) {
                double x[3] = { (double)i / (n - 1), (double)j / (n - 1),
                                (double)k / (n - 1) };
                bool inner = i > 0 && i < n - 1 && j > 0 && j < n - 1 &&
                             k > 0 && k < n - 1;

                if (inner && !to_exact) {
                    start_value(x, cfd.u[at(i, j, k)]);
                } else {
                    exact(x[0], x[1], x[2], cfd.u[at(i, j, k)]);
                }
            }
            npb_progress(4 * n);
        }
    }
}

/* What the right-hand side and the solvers need of each point */
static void derive(void)
{
    size_t plane = cfd.stride[2], p;
    int k, d;

    #pragma omp parallel for private(p, d)
    for (k = 0; k < cfd.n; k++) {
        for (p = k * plane; p < (k + 1) * plane; p++) {
            const double *u = cfd.u[p];

            cfd.rho_inv[p] = 1 / u[0];
            for (d = 0; d < 3; d++) {
                cfd.velocity[d][p] = u[1 + d] * cfd.rho_inv[p];
            }
            cfd.square[p] = 0.5 * (u[1] * u[1] + u[2] * u[2] + u[3] * u[3]) *
                            cfd.rho_inv[p];
            cfd.qs[p] = cfd.square[p] * cfd.rho_inv[p];
        }
        npb_progress(plane);
    }
}

/* Second difference around a point */
#define DIFF2(f, p, s) (f((p) + (s)) - 2 * f(p) + f((p) - (s)))

static void add_fluxes(size_t p, int d, double *rhs)
{
    size_t s = cfd.stride[d], up = p + s, down = p - s;
    const double *vel = cfd.velocity[d], *square = cfd.square;
    Flow *u = cfd.u;
    double viscous = C3C4 * cfd.t1, t2 = cfd.t2;
    int m;

#define MOMENTUM(q) (cfd.velocity[m - 1][q])
#define SPEED2(q) (vel[q] * vel[q])
#define QS(q) (cfd.qs[q])
#define ENERGY(q) (u[q][4] * cfd.rho_inv[q])
#define FLOW(q) (u[q][m])
    for (m = 0; m < 5; m++) {
        rhs[m] += cfd_d[d] * cfd.t1 * DIFF2(FLOW, p, s);
    }
    rhs[0] -= t2 * (u[up][1 + d] - u[down][1 + d]);
    for (m = 1; m < 4; m++) {
        rhs[m] += viscous * (m == 1 + d ? CON43 : 1) * DIFF2(MOMENTUM, p, s) -
                  t2 * (u[up][m] * vel[up] - u[down][m] * vel[down]);
    }
    rhs[1 + d] -= t2 * C2 * (u[up][4] - square[up] - u[down][4] +
                             square[down]);
    rhs[4] += viscous * ((1 - C1 * C1) * DIFF2(QS, p, s) +
                         DIFF2(SPEED2, p, s) / 6 +
                         C1 * C1 * DIFF2(ENERGY, p, s)) -
              t2 * ((C1 * u[up][4] - C2 * square[up]) * vel[up] -
                    (C1 * u[down][4] - C2 * square[down]) * vel[down]);
#undef MOMENTUM
#undef SPEED2
#undef QS
#undef ENERGY
#undef FLOW
}

/* Fourth difference, cut short beside the faces; @c is the coordinate */
static void add_dissipation(size_t p, int d, int c, double *rhs)
{
    int n = cfd.n, m;
    ptrdiff_t s = cfd.stride[d];
    Flow *u = cfd.u + p;

    for (m = 0; m < 5; m++) {
        double sum = (c == 1 || c == n - 2 ? 5 : 6) * u[0][m];

        if (c > 1) {
            sum -= 4 * u[-s][m];
        }
        if (c < n - 2) {
            sum -= 4 * u[s][m];
        }
        if (c > 2) {
            sum += u[-2 * s][m];
        }
        if (c < n - 3) {
            sum += u[2 * s][m];
        }
        rhs[m] -= DSSP * sum;
    }
}

/* Times dt */
static void make_rhs(void)
{
    int n = cfd.n, i, j, k, d, m;

    derive();
    #pragma omp parallel for private(i, j, d, m)
    for (k = 1; k < n - 1; k++) {
        for (j = 1; j < n - 1; j++) {
            for (i = 1; i < n - 1; i++) {
                const int c[3] = { i, j, k };
                size_t p = at(i, j, k);
                Flow sum;

                memcpy(sum, cfd.forcing[p], sizeof(sum));
                for (d = 0; d < 3; d++) {
                    add_fluxes(p, d, sum);
                    add_dissipation(p, d, c[d], sum);
                }
                for (m = 0; m < 5; m++) {
                    cfd.rhs[p][m] = sum[m] * cfd.dt;
                }
            }
            npb_progress(4 * (n - 2));
        }
    }
}

void cfd_lines(int direction, void (*solve)(int direction, size_t first),
               int units)
{
    int n = cfd.n, a, b;
    size_t outer = cfd.stride[direction == 2 ? 1 : 2];
    size_t inner = cfd.stride[direction == 0 ? 1 : 0];

    #pragma omp parallel for private(b)
    for (a = 1; a < n - 1; a++) {
        for (b = 1; b < n - 1; b++) {
            solve(direction, a * outer + b * inner);
            npb_progress(units * (n - 2));
        }
    }
}

void cfd_setup(const CfdClass *classes, char name)
{
    size_t points, p;
    int d, m;

    for (class = classes; class->name != name; class++) {
        continue;
    }
    cfd.n = class->n;
    cfd.stride[0] = 1;
    cfd.stride[1] = cfd.n;
    cfd.stride[2] = cfd.n * cfd.n;
    cfd.t1 = (cfd.n - 1) * (cfd.n - 1);
    cfd.t2 = (cfd.n - 1) / 2.0;
    points = cfd.n * cfd.stride[2];
    cfd.u = npb_alloc(points, sizeof(*cfd.u));
    cfd.rhs = npb_alloc(points, sizeof(*cfd.rhs));
    cfd.forcing = npb_alloc(points, sizeof(*cfd.forcing));
    for (d = 0; d < 3; d++) {
        cfd.velocity[d] = npb_alloc(points, sizeof(double));
    }
    cfd.square = npb_alloc(points, sizeof(double));
    cfd.qs = npb_alloc(points, sizeof(double));
    cfd.rho_inv = npb_alloc(points, sizeof(double));

    /* The forcing makes the right-hand side of the solution zero */
    set_flow(true);
    cfd.dt = 1;
    make_rhs();
    for (p = 0; p < points; p++) {
        for (m = 0; m < 5; m++) {
            cfd.forcing[p][m] = -cfd.rhs[p][m];
        }
    }
    cfd.dt = class->dt;
}

static void verify(void)
{
    int n = cfd.n, i, j, k, m;
    double inner = (double)(n - 2) * (n - 2) * (n - 2);
    double residual[5] = { 0 }, error[5] = { 0 };

    make_rhs();
    for (k = 1; k < n - 1; k++) {
        for (j = 1; j < n - 1; j++) {
            for (i = 1; i < n - 1; i++) {
                size_t p = at(i, j, k);
                Flow want;

                exact((double)i / (n - 1), (double)j / (n - 1),
                      (double)k / (n - 1), want);
                for (m = 0; m < 5; m++) {
                    double r = cfd.rhs[p][m] / cfd.dt;
                    double e = cfd.u[p][m] - want[m];

                    residual[m] += r * r;
                    error[m] += e * e;
                }
            }
            npb_progress(n);
        }
    }
    for (m = 0; m < 5; m++) {
        char what[40];

        snprintf(what, sizeof(what), "residual of component %d", m);
        npb_verify(what, sqrt(residual[m] / inner), class->residual[m], 1e-8);
        snprintf(what, sizeof(what), "error of component %d", m);
        npb_verify(what, sqrt(error[m] / inner), class->error[m], 1e-8);
    }
}

static void add_change(void)
{
    int n = cfd.n, i, j, k, m;

    #pragma omp parallel for private(i, j, m)
    for (k = 1; k < n - 1; k++) {
        for (j = 1; j < n - 1; j++) {
            for (i = 1; i < n - 1; i++) {
                size_t p = at(i, j, k);

                for (m = 0; m < 5; m++) {
                    cfd.u[p][m] += cfd.rhs[p][m];
                }
            }
            npb_progress(n - 2);
        }
    }
}

void cfd_run(void (*step)(void))
{
    int i;

    set_flow(false);
    for (i = 1; i <= class->steps; i++) {
        make_rhs();
        step();
        add_change();
        npb_iteration(i, class->steps, cfd.u,
                      cfd.n * cfd.stride[2] * sizeof(*cfd.u));
    }
    verify();
}
