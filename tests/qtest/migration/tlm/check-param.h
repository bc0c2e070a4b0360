/*
 * QTest for TLM: whether a parameter is taken or refused, and in which words
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_CHECK_PARAM_H
#define TLM_TEST_CHECK_PARAM_H

#include "libqtest.h"

/* @json is the value; none of these changes another parameter */
void check_param_taken(QTestState *vm, const char *name, const char *json);
void check_param_refused_saying(QTestState *vm, const char *name,
                                const char *json, const char *says);
/* In words that name the parameter */
void check_param_refused(QTestState *vm, const char *name, const char *json);

#endif
