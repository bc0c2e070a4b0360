/*
 * What SP and BT share: the flow, its right-hand side and its verification
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NPB_CFD_H
#define NPB_CFD_H

#include "common.h"

/* Constants of the equations, named as in the specification */
#define C1 1.4
#define C2 0.4
#define C3C4 0.1
#define C1345 (C1 * C1 * C3C4)
#define CON43 (4.0 / 3.0)
#define DSSP 0.25                       /* artificial dissipation */

/* Density, momentum in three directions, energy */
typedef double Flow[5];

typedef struct CfdClass {
    char name;
    int n, steps;
    double dt;
    double residual[5], error[5];       /* published */
} CfdClass;

typedef struct Cfd {
    int n;                      /* points in each direction */
    double dt;
    size_t stride[3];           /* from a point to the next in a direction */
    double t1, t2;              /* 1 / h^2 and 1 / 2h */
    Flow *u, *rhs, *forcing;
    /* of each point, made by cfd_rhs() */
    double *velocity[3], *square, *qs, *rho_inv;
} Cfd;

extern Cfd cfd;
extern const double cfd_d[3];           /* diffusion in each direction */

/* Once: @classes has that class */
void cfd_setup(const CfdClass *classes, char name);

/* One repetition, @step being the implicit half of a time step */
void cfd_run(void (*step)(void));

/*
 * Call @solve for all inner lines of a direction, with the index of the first
 * point; @units are those of a point
 */
void cfd_lines(int direction, void (*solve)(int direction, size_t first),
               int units);

#endif
