/*
 * Unit tests of the over-commit schedule, CPU lists and the choice of CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <math.h>
#include "overcommit/choose.h"
#include "overcommit/cpus.h"
#include "overcommit/error.h"
#include "overcommit/schedule.h"

static void test_steps(void)
{
    static const TlmOcStep steps[] = { { 20, 4 }, { 50, 2 }, { 90, 8 } };
    g_autoptr(GError) err = NULL;
    g_autoptr(TlmOcSchedule) s = tlm_oc_schedule_new(steps, 3, &err);

    g_assert_no_error(err);
    g_assert_cmpuint(tlm_oc_schedule_cpus(s, 0), ==, 0);
    g_assert_cmpuint(tlm_oc_schedule_cpus(s, 19.99), ==, 0);
    g_assert_cmpuint(tlm_oc_schedule_cpus(s, 20), ==, 4);
    g_assert_cmpuint(tlm_oc_schedule_cpus(s, 49.99), ==, 4);
    g_assert_cmpuint(tlm_oc_schedule_cpus(s, 50), ==, 2);
    g_assert_cmpuint(tlm_oc_schedule_cpus(s, 100), ==, 8);
    g_assert_cmpuint(tlm_oc_schedule_cpus(s, NAN), ==, 0);

    g_assert_cmpfloat(tlm_oc_schedule_next(s, 0), ==, 20);
    g_assert_cmpfloat(tlm_oc_schedule_next(s, 19.99), ==, 20);
    g_assert_cmpfloat(tlm_oc_schedule_next(s, 20), ==, 50);
    g_assert_cmpfloat(tlm_oc_schedule_next(s, 89.99), ==, 90);
    g_assert_cmpfloat(tlm_oc_schedule_next(s, 90), ==, HUGE_VAL);
}

static void test_steps_bad(void)
{
    static const TlmOcStep bad[][2] = {
        { { -1, 2 }, { 50, 2 } }, { { 0, 2 }, { 100.1, 2 } },
        { { 50, 2 }, { 50, 4 } }, { { 50, 2 }, { 20, 4 } },
        { { 20, 0 }, { 50, 4 } }, { { 20, 2 }, { NAN, 4 } },
        { { NAN, 2 }, { 50, 4 } }, { { 20, 2 }, { INFINITY, 4 } },
        { { 20, TLM_OC_MAX_CPUS + 1 }, { 50, 4 } },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_null(tlm_oc_schedule_new(bad[i], 2, &err));
        g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_INVALID);
    }
    g_assert_null(tlm_oc_schedule_new(NULL, 0, NULL));
}

static void test_parse(void)
{
    g_autoptr(TlmOcSchedule) one = tlm_oc_schedule_parse("0.5-(2)", NULL);
    g_autoptr(TlmOcSchedule) two = tlm_oc_schedule_parse(" 0.2-(4) , .5-(2)",
                                                         NULL);
    g_autoptr(TlmOcSchedule) edge = NULL;
    g_autofree char *text = NULL;
    TlmOcStep step;

    g_assert_nonnull(one);
    g_assert_cmpuint(tlm_oc_schedule_cpus(one, 49.9), ==, 0);
    g_assert_cmpuint(tlm_oc_schedule_cpus(one, 50), ==, 2);
    /* A fraction begins with a digit */
    g_assert_null(two);

    edge = tlm_oc_schedule_parse("0-(16),0.125-(4),1-(1)", NULL);
    g_assert_nonnull(edge);
    g_assert_cmpuint(tlm_oc_schedule_cpus(edge, 0), ==, 16);
    g_assert_cmpuint(tlm_oc_schedule_cpus(edge, 12.5), ==, 4);
    g_assert_cmpuint(tlm_oc_schedule_cpus(edge, 100), ==, 1);
    text = tlm_oc_schedule_to_string(edge);
    g_assert_cmpstr(text, ==, "0-(16),0.125-(4),1-(1)");
    g_assert_true(tlm_oc_schedule_step(edge, 1, &step));
    g_assert_cmpfloat(step.progress, ==, 12.5);
    g_assert_cmpuint(step.cpus, ==, 4);
    g_assert_true(tlm_oc_schedule_step(edge, 2, &step));
    g_assert_false(tlm_oc_schedule_step(edge, 3, &step));

    /* 0.55 * 100 is more than 55 in floating point */
    for (unsigned percent = 0; percent <= 100; percent++) {
        g_autofree char *t = g_strdup_printf("%u.%02u-(3)", percent / 100,
                                             percent % 100);
        g_autoptr(TlmOcSchedule) s = tlm_oc_schedule_parse(t, NULL);

        g_assert_nonnull(s);
        g_assert_cmpuint(tlm_oc_schedule_cpus(s, percent), ==, 3);
    }
}

static void test_parse_bad(void)
{
    static const char *const bad[] = {
        "", ",", "0.5", "0.5-", "0.5-2", "0.5-()", "0.5-(0)", "0.5-(-1)",
        "0.5-(2", "0.5-(2)x", "0.5-(2),", "-0.5-(2)", "50-(2)", "1.01-(2)",
        "nan-(2)", "inf-(2)", "0x1-(2)", "1e-1-(2)", "0.5-(2.5)", "0,5-(2)",
        "0.5-(99999999999999999999)", "0.5-(2),0.2-(4)", "0.5.5-(2)",
        "0.5-(2);0.6-(1)", "0.5 -(2)", "0.5-( 2)",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;

        g_test_message("'%s'", bad[i]);
        g_assert_null(tlm_oc_schedule_parse(bad[i], &err));
        g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_INVALID);
    }
}

static void test_cpus(void)
{
    static const char *const lists[][2] = {
        { "0", "0" }, { "0-3,8\n", "0-3,8" }, { "3,1,2", "1-3" },
        { "5-5", "5" }, { "0,2,4", "0,2,4" }, { "", "" }, { "\n", "" },
        { "63-64,8191", "63-64,8191" }, { "0-8191", "0-8191" },
    };
    static const char *const bad[] = {
        "a", "1-", "-1", "3-1", "1,,2", "1,", ",1", "8192", "0-8192", "1 2",
        "0x1", "99999999999999999999", "1-2-3", "+1",
    };
    TlmCpuSet a, b;

    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        g_autofree char *text = NULL;

        g_assert_true(tlm_cpus_parse(lists[i][0], &a, NULL));
        text = tlm_cpus_format(&a);
        g_assert_cmpstr(text, ==, lists[i][1]);
    }
    g_assert_cmpuint(tlm_cpus_count(&a), ==, TLM_OC_MAX_CPUS);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;

        g_test_message("'%s'", bad[i]);
        g_assert_false(tlm_cpus_parse(bad[i], &a, &err));
        g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_INVALID);
    }
    g_assert_true(tlm_cpus_parse("1-2", &a, NULL));
    g_assert_true(tlm_cpus_parse("0-2,100", &b, NULL));
    g_assert_true(tlm_cpus_subset(&a, &b));
    g_assert_false(tlm_cpus_subset(&b, &a));
    g_assert_true(tlm_cpus_has(&b, 100));
    g_assert_false(tlm_cpus_has(&b, TLM_OC_MAX_CPUS));
}

static void check_choice(const char *root, const char *from, unsigned n,
                         const char *want)
{
    g_autofree char *is = NULL;
    TlmCpuSet set, out;

    g_assert_true(tlm_cpus_parse(from, &set, NULL));
    tlm_cpus_choose(root, &set, n, &out);
    is = tlm_cpus_format(&out);
    g_assert_cmpstr(is, ==, want);
}

static void test_choose(void)
{
    g_autofree char *root = g_dir_make_tmp("tlm-cpus-XXXXXX", NULL);
    g_autofree char *top = g_strconcat(root, "/sys/devices/system/node", NULL);
    /* Listed out of order; one without CPUs, one that is not a node */
    static const char *const nodes[][2] = {
        { "node1", "4-7,12-15\n" }, { "node0", "0-3,8-11\n" },
        { "node10", "\n" }, { "nodes", "0-15\n" },
    };
    g_autofree char *rm = g_strdup_printf("rm -r '%s'", root);

    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        g_autofree char *dir = g_build_filename(top, nodes[i][0], NULL);
        g_autofree char *file = g_build_filename(dir, "cpulist", NULL);

        g_assert_cmpint(g_mkdir_with_parents(dir, 0755), ==, 0);
        g_assert_true(g_file_set_contents(file, nodes[i][1], -1, NULL));
    }
    check_choice(root, "0-15", 2, "0-1");
    check_choice(root, "0-15", 6, "0-3,8-9");
    check_choice(root, "0-15", 9, "0-4,8-11");
    check_choice(root, "2-7", 2, "4-5");
    check_choice(root, "2-7", 4, "4-7");
    check_choice(root, "2-7", 5, "2,4-7");
    check_choice(root, "2-7", 100, "2-7");
    check_choice(root, "14,100", 2, "14,100");
    check_choice(root, "", 2, "");
    g_assert_cmpint(system(rm), ==, 0);
    /* No topology known */
    check_choice(root, "2-7", 2, "2-3");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/overcommit/schedule/steps", test_steps);
    g_test_add_func("/overcommit/schedule/steps-bad", test_steps_bad);
    g_test_add_func("/overcommit/schedule/parse", test_parse);
    g_test_add_func("/overcommit/schedule/parse-bad", test_parse_bad);
    g_test_add_func("/overcommit/cpus/list", test_cpus);
    g_test_add_func("/overcommit/cpus/choose", test_choose);
    return g_test_run();
}
