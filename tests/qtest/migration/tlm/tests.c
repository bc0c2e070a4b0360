/*
 * QTest testcases for TLM, time-bound, thread-based live migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "framework.h"
#include "tests.h"

void migration_test_add_tlm(MigrationTestEnv *env)
{
    /* The memory layout of the guest, and /proc */
    if (!env->is_x86) {
        return;
    }
    tlm_test_init(env);
    tlm_test_add_transport(env);
    tlm_test_add_file(env);
    tlm_test_add_live(env);
    tlm_test_add_connect(env);
    tlm_test_add_data_address(env);
    tlm_test_add_fault(env);
    tlm_test_add_postcopy(env);
#ifdef CONFIG_TLM_OVERCOMMIT
    tlm_test_add_overcommit(env);
#endif
    tlm_test_add_refused(env);
    tlm_test_add_hmp(env);
    tlm_test_add_snapshot(env);
}
