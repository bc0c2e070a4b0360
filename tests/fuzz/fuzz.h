/*
 * A fuzzer: LLVMFuzzerTestOneInput() is what libFuzzer calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_FUZZ_H
#define TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
