/*
 * SP: flow, with scalar pentadiagonal systems along each line (RNR-94-007,
 * section 3)
 *
 * In each direction the equations are turned into those of the five
 * characteristic variables, which do not depend on each other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <math.h>
#include <string.h>

#include "cfd.h"

static const CfdClass classes[] = {
    { 'S', 12, 100, 0.015,
      { 2.7470315451339479e-02, 1.0360746705285417e-02,
        1.6235745065095532e-02, 1.5840557224455615e-02,
        3.4849040609362460e-02 },
      { 2.7289258557377227e-05, 1.0364446640837285e-05,
        1.6154798287166471e-05, 1.5750704994480102e-05,
        3.4177666183390531e-05 } },
    { 'W', 36, 400, 0.0015,
      { 0.1893253733584e-02, 0.1717075447775e-03, 0.2778153350936e-03,
        0.2887475409984e-03, 0.3143611161242e-02 },
      { 0.7542088599534e-04, 0.6512852253086e-05, 0.1049092285688e-04,
        0.1128838671535e-04, 0.1212845639773e-03 } },
    { 'A', 64, 400, 0.0015,
      { 2.4799822399300195, 1.1276337964368832, 1.5028977888770491,
        1.4217816211695179, 2.1292113035138280 },
      { 1.0900140297820550e-04, 3.7343951769282091e-05,
        5.0092785406541633e-05, 4.7671093939528255e-05,
        1.3621613399213001e-04 } },
};

/* Of each row: two before, one before, itself, one after, two after */
typedef double Row[5];

/* Speed of sound */
static double sound(size_t p)
{
    return sqrt(C1 * C2 * cfd.rho_inv[p] * (cfd.u[p][4] - cfd.square[p]));
}

/*
 * Eliminate below the diagonal and solve, for components @from to @to of the
 * right-hand side
 */
static void solve_rows(Row *rows, size_t first, size_t s, int from, int to)
{
    int n = cfd.n, i, k, m;
    Flow *rhs = cfd.rhs + first;

    for (i = 0; i < n; i++) {
        double inv = 1 / rows[i][2];

        rows[i][3] *= inv;
        rows[i][4] *= inv;
        for (m = from; m <= to; m++) {
            rhs[i * s][m] *= inv;
        }
        for (k = 1; k <= 2 && i + k < n; k++) {
            double factor = rows[i + k][2 - k];

            rows[i + k][3 - k] -= factor * rows[i][3];
            rows[i + k][4 - k] -= factor * rows[i][4];
            for (m = from; m <= to; m++) {
                rhs[(i + k) * s][m] -= factor * rhs[i * s][m];
            }
        }
    }
    for (i = n - 2; i >= 0; i--) {
        for (m = from; m <= to; m++) {
            rhs[i * s][m] -= rows[i][3] * rhs[(i + 1) * s][m];
            if (i < n - 2) {
                rhs[i * s][m] -= rows[i][4] * rhs[(i + 2) * s][m];
            }
        }
    }
}

/*
 * The systems of the three characteristics that move with the flow are the
 * same; in those of the other two, sound is faster or slower by its speed.
 */
static void solve_line(int d, size_t first)
{
    int n = cfd.n, i;
    size_t s = cfd.stride[d];
    double t1 = cfd.dt * cfd.t1, t2 = cfd.dt * cfd.t2, z = cfd.dt * DSSP;
    double speed[n], viscosity[n];
    Row flow[n], plus[n], minus[n];

    for (i = 0; i < n; i++) {
        size_t p = first + i * s;

        speed[i] = sound(p);
        /* the largest coefficient of any of the five equations */
        viscosity[i] = t1 * (cfd_d[d] + C1345 * cfd.rho_inv[p]);
        memset(flow[i], 0, sizeof(Row));
        flow[i][2] = 1;
    }
    for (i = 1; i < n - 1; i++) {
        const double *vel = cfd.velocity[d] + first + i * s;

        flow[i][1] = -t2 * vel[-(ptrdiff_t)s] - viscosity[i - 1];
        flow[i][2] = 1 + 2 * viscosity[i];
        flow[i][3] = t2 * vel[s] - viscosity[i + 1];
        /* dissipation, cut short beside the faces */
        flow[i][0] += i > 2 ? z : 0;
        flow[i][1] -= i > 1 ? 4 * z : 0;
        flow[i][2] += (i == 1 || i == n - 2 ? 5 : 6) * z;
        flow[i][3] -= i < n - 2 ? 4 * z : 0;
        flow[i][4] += i < n - 3 ? z : 0;
    }
    memcpy(plus, flow, sizeof(flow));
    memcpy(minus, flow, sizeof(flow));
    for (i = 1; i < n - 1; i++) {
        plus[i][1] -= t2 * speed[i - 1];
        plus[i][3] += t2 * speed[i + 1];
        minus[i][1] += t2 * speed[i - 1];
        minus[i][3] -= t2 * speed[i + 1];
    }
    solve_rows(flow, first, s, 0, 2);
    solve_rows(plus, first, s, 3, 3);
    solve_rows(minus, first, s, 4, 4);
}

/* To the characteristic variables of the first direction */
static void to_x(size_t p, Flow r)
{
    double c = sound(p), inv = cfd.rho_inv[p] * M_SQRT1_2;
    double u = cfd.velocity[0][p], v = cfd.velocity[1][p];
    double w = cfd.velocity[2][p];
    double a = C2 / (c * c) * (cfd.qs[p] * r[0] - u * r[1] - v * r[2] -
                               w * r[3] + r[4]);
    double b = inv * (u * r[0] - r[1]);
    double e = inv * c * a;
    Flow out = { r[0] - a, -cfd.rho_inv[p] * (w * r[0] - r[3]),
                 cfd.rho_inv[p] * (v * r[0] - r[2]), e - b, e + b };

    memcpy(r, out, sizeof(out));
}

/* From one direction to the next */
static void x_to_y(size_t p, Flow r)
{
    double a = M_SQRT1_2 * r[2], b = 0.5 * (r[3] + r[4]);
    Flow out = { -r[1], r[0], M_SQRT1_2 * (r[3] - r[4]), b - a, b + a };

    memcpy(r, out, sizeof(out));
}

static void y_to_z(size_t p, Flow r)
{
    double a = M_SQRT1_2 * r[0], b = 0.5 * (r[3] + r[4]);
    Flow out = { M_SQRT1_2 * (r[3] - r[4]), -r[2], r[1], b - a, b + a };

    memcpy(r, out, sizeof(out));
}

/* And back to density, momentum and energy */
static void from_z(size_t p, Flow r)
{
    double c = sound(p), rho = cfd.u[p][0];
    double u = cfd.velocity[0][p], v = cfd.velocity[1][p];
    double w = cfd.velocity[2][p];
    double a = M_SQRT1_2 * rho / c * (r[3] + r[4]), b = r[2] + a;
    double e = M_SQRT1_2 * rho * (r[3] - r[4]);
    Flow out = { b, u * b - rho * r[1], v * b + rho * r[0], w * b + e,
                 rho * (v * r[0] - u * r[1]) + cfd.qs[p] * b +
                 c * c * a / C2 + w * e };

    memcpy(r, out, sizeof(out));
}

static void transform(void (*of_point)(size_t p, Flow r))
{
    int n = cfd.n, i, j, k;

    #pragma omp parallel for private(i, j)
    for (k = 1; k < n - 1; k++) {
        for (j = 1; j < n - 1; j++) {
            size_t p = k * cfd.stride[2] + j * cfd.stride[1];

            for (i = 1; i < n - 1; i++) {
                of_point(p + i, cfd.rhs[p + i]);
            }
            npb_progress(n - 2);
        }
    }
}

static void step(void)
{
    transform(to_x);
    cfd_lines(0, solve_line, 4);
    transform(x_to_y);
    cfd_lines(1, solve_line, 4);
    transform(y_to_z);
    cfd_lines(2, solve_line, 4);
    transform(from_z);
}

static void setup(char name)
{
    cfd_setup(classes, name);
}

static void run(void)
{
    cfd_run(step);
}

static const NpbKernel kernel = { "SP", "SWA", setup, run };

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
