/*
 * QTest for TLM: what a migration that has ended may leave behind
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_LEFTOVERS_H
#define TLM_TEST_LEFTOVERS_H

#include "libqtest.h"

bool tlm_has_yank_instance(QTestState *from);
bool tlm_has_threads(QTestState *from);
unsigned tlm_count_sockets(QTestState *from);

/*
 * All threads are joined, all sockets but @sockets are closed: another
 * migration may start
 */
void tlm_check_nothing_left(QTestState *from, unsigned sockets);

#endif
