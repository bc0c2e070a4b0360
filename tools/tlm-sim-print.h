/*
 * tlm-sim: the result of one migration in a line
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_SIM_PRINT_H
#define TLM_SIM_PRINT_H

#include "tlm-sim-model.h"

void sim_print_result(const SimConfig *c, const SimResult *r, bool json);

#endif
