/*
 * tlm-sim: what must hold for guests of random and of known behaviour
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_SIM_SUITE_H
#define TLM_SIM_SUITE_H

/* Speaks TAP; returns the exit status */
int sim_selftest(unsigned runs, unsigned seed, bool verbose);

#endif
