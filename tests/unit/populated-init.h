/*
 * main() of a test that populated-init.c runs as process 1
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_POPULATED_INIT_H
#define TEST_POPULATED_INIT_H

int test_main(int argc, char **argv);

#endif
