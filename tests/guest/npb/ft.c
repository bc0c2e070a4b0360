/*
 * FT: a partial differential equation in three dimensions, solved by fast
 * Fourier transforms (RNR-94-007, section 2.5)
 *
 * Each iteration rewrites both arrays, one of them three times: along its
 * rows, and in two directions across them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common.h"

#define MAX_ITERATIONS 20
#define MAX_LENGTH 512
#define BLOCK 16                /* columns that are transformed together */
#define ALPHA 1e-6

typedef struct Complex {
    double re, im;
} Complex;

typedef struct FtClass {
    char name;
    int log_size[3];            /* x, along rows, first */
    int iterations;
    Complex checksum[MAX_ITERATIONS];       /* published */
} FtClass;

static const FtClass classes[] = {
    { 'S', { 6, 6, 6 }, 6, {
        { 5.546087004964e+02, 4.845363331978e+02 },
        { 5.546385409189e+02, 4.865304269511e+02 },
        { 5.546148406171e+02, 4.883910722336e+02 },
        { 5.545423607415e+02, 4.901273169046e+02 },
        { 5.544255039624e+02, 4.917475857993e+02 },
        { 5.542683411902e+02, 4.932597244941e+02 } } },
    { 'W', { 7, 7, 5 }, 6, {
        { 5.673612178944e+02, 5.293246849175e+02 },
        { 5.631436885271e+02, 5.282149986629e+02 },
        { 5.594024089970e+02, 5.270996558037e+02 },
        { 5.560698047020e+02, 5.260027904925e+02 },
        { 5.530898991250e+02, 5.249400845633e+02 },
        { 5.504159734538e+02, 5.239212247086e+02 } } },
    { 'A', { 8, 8, 7 }, 6, {
        { 5.046735008193e+02, 5.114047905510e+02 },
        { 5.059412319734e+02, 5.098809666433e+02 },
        { 5.069376896287e+02, 5.098144042213e+02 },
        { 5.077892868474e+02, 5.101336130759e+02 },
        { 5.085233095391e+02, 5.104914655194e+02 },
        { 5.091487099959e+02, 5.107917842803e+02 } } },
    { 'B', { 9, 8, 8 }, 20, {
        { 5.177643571579e+02, 5.077803458597e+02 },
        { 5.154521291263e+02, 5.088249431599e+02 },
        { 5.146409228649e+02, 5.096208912659e+02 },
        { 5.142378756213e+02, 5.101023387619e+02 },
        { 5.139626667737e+02, 5.103976610617e+02 },
        { 5.137423460082e+02, 5.105948019802e+02 },
        { 5.135547056878e+02, 5.107404165783e+02 },
        { 5.133910925466e+02, 5.108576573661e+02 },
        { 5.132470705390e+02, 5.109577278523e+02 },
        { 5.131197729984e+02, 5.110460304483e+02 },
        { 5.130070319283e+02, 5.111252433800e+02 },
        { 5.129070537032e+02, 5.111968077718e+02 },
        { 5.128182883502e+02, 5.112616233064e+02 },
        { 5.127393733383e+02, 5.113203605551e+02 },
        { 5.126691062020e+02, 5.113735928093e+02 },
        { 5.126064276004e+02, 5.114218460548e+02 },
        { 5.125504076570e+02, 5.114656139760e+02 },
        { 5.125002331720e+02, 5.115053595966e+02 },
        { 5.124551951846e+02, 5.115415130407e+02 },
        { 5.124146770029e+02, 5.115744692211e+02 } } },
};

static const FtClass *class;
static int nx, ny, nz;
static size_t points;
static Complex *wave;           /* the transform of the initial state */
static Complex *state;          /* and back, at the time of the iteration */
static Complex roots[MAX_LENGTH];       /* exp(-2 pi i k / MAX_LENGTH) */
static double decay[3][MAX_LENGTH];     /* in each direction, per iteration */

static void setup(char name)
{
    int d, i;

    for (class = classes; class->name != name; class++) {
        continue;
    }
    nx = 1 << class->log_size[0];
    ny = 1 << class->log_size[1];
    nz = 1 << class->log_size[2];
    points = (size_t)nx * ny * nz;
    wave = npb_alloc(points, sizeof(*wave));
    state = npb_alloc(points, sizeof(*state));
    for (i = 0; i < MAX_LENGTH; i++) {
        roots[i].re = cos(2 * M_PI * i / MAX_LENGTH);
        roots[i].im = -sin(2 * M_PI * i / MAX_LENGTH);
    }
    for (d = 0; d < 3; d++) {
        int n = 1 << class->log_size[d];

        for (i = 0; i < n; i++) {
            double k = i < n / 2 ? i : i - n;

            decay[d][i] = exp(-4 * ALPHA * M_PI * M_PI * k * k);
        }
    }
}

/* The initial state is random, real and imaginary part in turn */
static void make_state(void)
{
    size_t i;
    int y, z;

    #pragma omp parallel for private(y, i)
    for (z = 0; z < nz; z++) {
        for (y = 0; y < ny; y++) {
            size_t first = ((size_t)z * ny + y) * nx;
            uint64_t x = npb_random_skip(NPB_SEED, 2 * first);

            for (i = first; i < first + nx; i++) {
                wave[i].re = npb_random(&x);
                wave[i].im = npb_random(&x);
            }
            npb_progress(nx);
        }
    }
}

/*
 * Stockham's transform of @width interleaved sequences of length 2^@log in
 * @a, with @b as its work space; @sign -1 is the inverse.  Returns which of
 * the two has the result.
 */
static Complex *transform(int log, int width, Complex *a, Complex *b, int sign)
{
    int half, stride, p, q;

    for (half = 1 << log >> 1, stride = width; half; half /= 2, stride *= 2) {
        Complex *swap;

        for (p = 0; p < half; p++) {
            const Complex *x = a + p * stride, *y = x + half * stride;
            Complex *sum = b + 2 * p * stride, *difference = sum + stride;
            double re = roots[p * (MAX_LENGTH / 2 / half)].re;
            double im = roots[p * (MAX_LENGTH / 2 / half)].im * sign;

            for (q = 0; q < stride; q++) {
                double dre = x[q].re - y[q].re, dim = x[q].im - y[q].im;

                sum[q].re = x[q].re + y[q].re;
                sum[q].im = x[q].im + y[q].im;
                difference[q].re = dre * re - dim * im;
                difference[q].im = dre * im + dim * re;
            }
        }
        swap = a;
        a = b;
        b = swap;
    }
    return a;
}

static void transform_rows(Complex *array, int sign)
{
    int y, z;

    #pragma omp parallel for private(y)
    for (z = 0; z < nz; z++) {
        Complex work[MAX_LENGTH];

        for (y = 0; y < ny; y++) {
            Complex *row = array + ((size_t)z * ny + y) * nx;

            if (transform(class->log_size[0], 1, row, work, sign) != row) {
                memcpy(row, work, nx * sizeof(*row));
            }
            npb_progress(nx * class->log_size[0]);
        }
    }
}

/* BLOCK columns from @from on, whose elements are @stride apart */
static void transform_columns(Complex *from, size_t stride, int log, int sign)
{
    Complex a[MAX_LENGTH * BLOCK], b[MAX_LENGTH * BLOCK], *out;
    int i;

    for (i = 0; i < 1 << log; i++) {
        memcpy(a + i * BLOCK, from + i * stride, BLOCK * sizeof(*a));
    }
    out = transform(log, BLOCK, a, b, sign);
    for (i = 0; i < 1 << log; i++) {
        memcpy(from + i * stride, out + i * BLOCK, BLOCK * sizeof(*a));
    }
    npb_progress((BLOCK << log) * log);
}

static void transform_all(Complex *array, int sign)
{
    size_t plane = (size_t)nx * ny;
    int x, y, z;

    transform_rows(array, sign);
    #pragma omp parallel for private(x)
    for (z = 0; z < nz; z++) {
        for (x = 0; x < nx; x += BLOCK) {
            transform_columns(array + z * plane + x, nx, class->log_size[1],
                              sign);
        }
    }
    #pragma omp parallel for private(x)
    for (y = 0; y < ny; y++) {
        for (x = 0; x < nx; x += BLOCK) {
            transform_columns(array + y * nx + x, plane, class->log_size[2],
                              sign);
        }
    }
}

/* One step in time of each wave */
static void evolve(void)
{
    int x, y, z;

    #pragma omp parallel for private(y, x)
    for (z = 0; z < nz; z++) {
        for (y = 0; y < ny; y++) {
            Complex *in = wave + ((size_t)z * ny + y) * nx;
            Complex *out = state + ((size_t)z * ny + y) * nx;

            for (x = 0; x < nx; x++) {
                double by = decay[0][x] * decay[1][y] * decay[2][z];

                in[x].re *= by;
                in[x].im *= by;
                out[x] = in[x];
            }
            npb_progress(nx);
        }
    }
}

static void verify(int iteration)
{
    const Complex *want = &class->checksum[iteration - 1];
    Complex sum = { 0, 0 };
    char what[40];
    int j;

    for (j = 1; j <= 1024; j++) {
        size_t x = j % nx, y = 3 * j % ny, z = 5 * j % nz;
        const Complex *at = state + (z * ny + y) * nx + x;

        sum.re += at->re;
        sum.im += at->im;
    }
    snprintf(what, sizeof(what), "real checksum %d", iteration);
    npb_verify(what, sum.re / points, want->re, 1e-12);
    snprintf(what, sizeof(what), "imaginary checksum %d", iteration);
    npb_verify(what, sum.im / points, want->im, 1e-12);
}

static void run(void)
{
    int i;

    make_state();
    transform_all(wave, 1);
    for (i = 1; i <= class->iterations; i++) {
        evolve();
        transform_all(state, -1);
        verify(i);
        npb_iteration(i, class->iterations, wave, points * sizeof(*wave));
    }
}

static const NpbKernel kernel = { "FT", "SWAB", setup, run };

int main(int argc, char **argv)
{
    return npb_main(argc, argv, &kernel);
}
