/*
 * QTest for TLM: the guest's memory, and whether the guest runs
 *
 * The guest writes to all pages from X86_TEST_MEM_START to
 * X86_TEST_MEM_END, over and over.  dtx and the stop stage send these.  mtx
 * sends the pages above, which the guest never touches; the tests fill them
 * with a pattern and look for it at the destination.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_GUEST_H
#define TLM_TEST_GUEST_H

#include "libqtest.h"
#include "migration/bootfile.h"
#include "qemu/units.h"

/* Pages that the guest does not use */
#define TLM_PATTERN_START (X86_TEST_MEM_END + 4 * MiB)
#define TLM_PATTERN_SIZE (20 * MiB)
/* One that mtx comes by early */
#define TLM_MARKER (512 * KiB)
#define TLM_MARKER_VALUE 0xFEED12345678CAFEULL

/* Writes pattern and marker; checks the pattern */
void tlm_fill_pattern(QTestState *from);
void tlm_check_pattern(QTestState *to);

/* Writes to each page that the guest itself writes to: none is zero then */
void tlm_fill_guest_pages(QTestState *from);

/* As query-status says */
bool tlm_guest_runs(QTestState *who);

/* It runs, and writes to its memory */
void tlm_check_guest_runs(QTestState *who);

#endif
