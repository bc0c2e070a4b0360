/*
 * What the kernels over several processes share, by MPI
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NPB_PROCESSES_H
#define NPB_PROCESSES_H

#include <stdbool.h>

/* All but the first are quiet */
void processes_start(int *me, int *num);

/* For NpbKernel */
bool processes_any(bool mine);
void processes_end(void);

#endif
