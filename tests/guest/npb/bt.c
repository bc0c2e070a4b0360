/*
 * BT: flow, with block tridiagonal systems along each line (RNR-94-007,
 * section 3)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "cfd.h"

typedef double Block[5][5];

static const CfdClass classes[] = {
    { 'S', 12, 60, 0.010,
      { 1.7034283709541311e-01, 1.2975252070034097e-02,
        3.2527926989486055e-02, 2.6436421275166801e-02,
        1.9211784131744430e-01 },
      { 4.9976913345811579e-04, 4.5195666782961927e-05,
        7.3973765172921357e-05, 7.3821238632439731e-05,
        8.9269630987491446e-04 } },
    { 'W', 24, 200, 0.0008,
      { 0.1125590409344e+03, 0.1180007595731e+02, 0.2710329767846e+02,
        0.2469174937669e+02, 0.2638427874317e+03 },
      { 0.4419655736008e+01, 0.4638531260002e+00, 0.1011551749967e+01,
        0.9235878729944e+00, 0.1018045837718e+02 } },
    { 'A', 64, 200, 0.0008,
      { 1.0806346714637264e+02, 1.1319730901220813e+01,
        2.5974354511582465e+01, 2.3665622544678910e+01,
        2.5278963211748344e+02 },
      { 4.2348416040525025e+00, 4.4390282496995698e-01,
        9.6692480136345650e-01, 8.8302063039765474e-01,
        9.7379901770829278e+00 } },
};

/* Derivatives of the flux of a direction, and of its viscous part */
static void jacobians(size_t p, int d, Block flux, Block viscous)
{
    const double *u = cfd.u[p];
    double inv = cfd.rho_inv[p], inv2 = inv * inv, vel = u[1 + d] * inv;
    int n = 1 + d, m;

    memset(flux, 0, sizeof(Block));
    memset(viscous, 0, sizeof(Block));

    flux[0][n] = 1;
    for (m = 1; m < 4; m++) {
        double stress = C3C4 * (m == n ? CON43 : 1);

        flux[m][0] = -u[m] * u[n] * inv2;
        flux[m][n] += u[m] * inv;
        flux[m][m] += vel;
        flux[4][m] = -C2 * u[m] * u[n] * inv2;

        viscous[m][0] = -stress * inv2 * u[m];
        viscous[m][m] = stress * inv;
        viscous[4][0] -= (stress - C1345) * inv2 * inv * u[m] * u[m];
        viscous[4][m] = (stress - C1345) * inv2 * u[m];
    }
    /* the pressure */
    flux[n][0] += C2 * cfd.qs[p];
    for (m = 1; m < 4; m++) {
        flux[n][m] -= C2 * u[m] * inv;
    }
    flux[n][4] = C2;
    flux[4][0] = (2 * C2 * cfd.square[p] - C1 * u[4]) * u[n] * inv2;
    flux[4][n] += C1 * u[4] * inv - C2 * cfd.qs[p];
    flux[4][4] = C1 * vel;

    viscous[4][0] -= C1345 * inv2 * u[4];
    viscous[4][4] = C1345 * inv;
}

/* Solve b (x, y) = (c, r) for the matrix x and the vector y, in place */
static void eliminate(Block b, Block c, Flow r)
{
    int pivot, row, m;

    for (pivot = 0; pivot < 5; pivot++) {
        double inv = 1 / b[pivot][pivot];

        for (m = pivot + 1; m < 5; m++) {
            b[pivot][m] *= inv;
        }
        for (m = 0; m < 5; m++) {
            c[pivot][m] *= inv;
        }
        r[pivot] *= inv;
        for (row = 0; row < 5; row++) {
            double factor = b[row][pivot];

            if (row == pivot) {
                continue;
            }
            for (m = pivot + 1; m < 5; m++) {
                b[row][m] -= factor * b[pivot][m];
            }
            for (m = 0; m < 5; m++) {
                c[row][m] -= factor * c[pivot][m];
            }
            r[row] -= factor * r[pivot];
        }
    }
}

static void solve_line(int d, size_t first)
{
    int n = cfd.n, i, m, l, k;
    size_t s = cfd.stride[d];
    double t1 = cfd.dt * cfd.t1, t2 = cfd.dt * cfd.t2;
    Block flux[n], viscous[n], above[n], diagonal, below;

    for (i = 0; i < n; i++) {
        jacobians(first + i * s, d, flux[i], viscous[i]);
    }
    /* forward; nothing changes at either end */
    memset(above[0], 0, sizeof(Block));
    for (i = 1; i < n - 1; i++) {
        double *rhs = cfd.rhs[first + i * s];
        const double *before = cfd.rhs[first + (i - 1) * s];

        for (m = 0; m < 5; m++) {
            for (l = 0; l < 5; l++) {
                double same = m == l ? t1 * cfd_d[d] : 0;

                below[m][l] = -t2 * flux[i - 1][m][l] -
                              t1 * viscous[i - 1][m][l] - same;
                diagonal[m][l] = (m == l) + 2 * t1 * viscous[i][m][l] +
                                 2 * same;
                above[i][m][l] = t2 * flux[i + 1][m][l] -
                                 t1 * viscous[i + 1][m][l] - same;
            }
        }
        for (m = 0; m < 5; m++) {
            for (k = 0; k < 5; k++) {
                rhs[m] -= below[m][k] * before[k];
                for (l = 0; l < 5; l++) {
                    diagonal[m][l] -= below[m][k] * above[i - 1][k][l];
                }
            }
        }
        eliminate(diagonal, above[i], rhs);
    }
    for (i = n - 3; i > 0; i--) {
        double *rhs = cfd.rhs[first + i * s];
        const double *after = cfd.rhs[first + (i + 1) * s];

        for (m = 0; m < 5; m++) {
            for (k = 0; k < 5; k++) {
                rhs[m] -= above[i][m][k] * after[k];
            }
        }
    }
}

static void step(void)
{
    int d;

    for (d = 0; d < 3; d++) {
        cfd_lines(d, solve_line, 13);
    }
}

static void setup(char name)
{
    cfd_setup(classes, name);
}

static void run(void)
{
    cfd_run(step);
}

static const NpbKernel kernel = { "BT", "SWA", setup, run };

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
