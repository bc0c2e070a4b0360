/*
 * QTest for TLM: whether a parameter is taken or refused, and in which words
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "check-param.h"
#include "framework.h"

void check_param_taken(QTestState *vm, const char *name,
                       const char *json)
{
    g_autofree char *cmd = g_strdup_printf(
        "{ 'execute': 'migrate-set-parameters',"
        "  'arguments': { '%s': %s } }", name, json);
    QDict *rsp;

    qtest_qmp_send_raw(vm, "%s", cmd);
    rsp = qtest_qmp_receive(vm);
    if (!qdict_haskey(rsp, "return")) {
        g_test_message("'%s' does not take %s", name, json);
    }
    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

void check_param_refused_saying(QTestState *vm, const char *name,
                                const char *json, const char *says)
{
    g_autofree char *cmd = g_strdup_printf(
        "{ 'execute': 'migrate-set-parameters',"
        "  'arguments': { '%s': %s } }", name, json);
    QDict *before = qtest_qmp_assert_success_ref(
        vm, "{ 'execute': 'query-migrate-parameters' }");
    QDict *after, *rsp;

    qtest_qmp_send_raw(vm, "%s", cmd);
    rsp = qtest_qmp_receive(vm);
    if (!qdict_haskey(rsp, "error")) {
        g_test_message("'%s' takes %s", name, json);
    }
    g_assert_true(qdict_haskey(rsp, "error"));
    tlm_check_error(qobject_ref(qdict_get_qdict(rsp, "error")), says);
    qobject_unref(rsp);

    after = qtest_qmp_assert_success_ref(
        vm, "{ 'execute': 'query-migrate-parameters' }");
    g_assert_true(qobject_is_equal(QOBJECT(before), QOBJECT(after)));
    qobject_unref(before);
    qobject_unref(after);
}

void check_param_refused(QTestState *vm, const char *name,
                         const char *json)
{
    check_param_refused_saying(vm, name, json, name);
}
