/*
 * QTest for TLM: the themes, each of which adds its tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_TESTS_H
#define TLM_TEST_TESTS_H

#include "migration/framework.h"

void tlm_test_add_transport(MigrationTestEnv *env);
void tlm_test_add_file(MigrationTestEnv *env);
void tlm_test_add_live(MigrationTestEnv *env);
void tlm_test_add_connect(MigrationTestEnv *env);
void tlm_test_add_data_address(MigrationTestEnv *env);
void tlm_test_add_fault(MigrationTestEnv *env);
void tlm_test_add_postcopy(MigrationTestEnv *env);
void tlm_test_add_overcommit(MigrationTestEnv *env);
void tlm_test_add_refused(MigrationTestEnv *env);
void tlm_test_add_hmp(MigrationTestEnv *env);
void tlm_test_add_snapshot(MigrationTestEnv *env);

#endif
