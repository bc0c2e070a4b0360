/*
 * QTest for TLM: the stages of a migration, and waiting for them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_WAIT_H
#define TLM_TEST_WAIT_H

#include "libqtest.h"

/* Stages of the current migration, each with a comma behind it */
const char *tlm_stages(void);
#define tlm_assert_stages(expected) \
    g_assert_cmpstr(tlm_stages(), ==, (expected))
/* Takes note of those of this VM from now on */
void tlm_watch_stages(QTestState *from);
/* Another migration begins */
void tlm_stages_clear(void);

/*
 * Waits a little, for what the function waits for; fails when a time that no
 * test should need is up: a test does not hang when something does not happen
 */
void tlm_wait_some(const char *func, int64_t start_us);
#define tlm_more_time(start_us) tlm_wait_some(__func__, start_us)

void tlm_wait_for_stage(QTestState *from, const char *stage);
/* But for "completed", which must not come instead */
void tlm_wait_for_status(QTestState *from, const char *status);
/* Until so many have begun */
void tlm_wait_for_epochs(QTestState *from, int64_t epochs);

#endif
