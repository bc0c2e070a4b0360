/*
 * What the kernels over several processes share, by MPI
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <mpi.h>

#include "common.h"
#include "processes.h"

void processes_start(int *me, int *num)
{
    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, me);
    MPI_Comm_size(MPI_COMM_WORLD, num);
    if (*me) {
        npb_quiet();
    }
}

bool processes_any(bool mine)
{
    int value = mine, all;

    MPI_Allreduce(&value, &all, 1, MPI_INT, MPI_LOR, MPI_COMM_WORLD);
    return all;
}

void processes_end(void)
{
    MPI_Finalize();
}
