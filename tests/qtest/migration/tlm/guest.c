/*
 * QTest for TLM: the guest's memory, and whether the guest runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "migration/framework.h"
#include "qobject/qdict.h"
#include "guest.h"
#include "wait.h"

#define BUF_SIZE (64 * KiB)

static uint64_t pattern(uint64_t addr)
{
    return addr * 0x9E3779B97F4A7C15ULL | 1;
}

void tlm_fill_pattern(QTestState *from)
{
    const uint64_t end = TLM_PATTERN_START + TLM_PATTERN_SIZE;
    g_autofree uint64_t *buf = g_malloc(BUF_SIZE);

    for (uint64_t addr = TLM_PATTERN_START; addr < end; addr += BUF_SIZE) {
        for (unsigned i = 0; i < BUF_SIZE / 8; i++) {
            buf[i] = pattern(addr + i * 8);
        }
        qtest_bufwrite(from, addr, buf, BUF_SIZE);
    }
    qtest_writeq(from, TLM_MARKER, TLM_MARKER_VALUE);
}

void tlm_check_pattern(QTestState *to)
{
    const uint64_t end = TLM_PATTERN_START + TLM_PATTERN_SIZE;
    g_autofree uint64_t *buf = g_malloc(BUF_SIZE);

    for (uint64_t addr = TLM_PATTERN_START; addr < end; addr += BUF_SIZE) {
        qtest_bufread(to, addr, buf, BUF_SIZE);
        for (unsigned i = 0; i < BUF_SIZE / 8; i++) {
            if (buf[i] != pattern(addr + i * 8)) {
                g_test_message("differs at 0x%" PRIx64, addr + i * 8);
            }
            g_assert_cmphex(buf[i], ==, pattern(addr + i * 8));
        }
    }
}

void tlm_fill_guest_pages(QTestState *from)
{
    for (uint64_t addr = X86_TEST_MEM_START; addr < X86_TEST_MEM_END;
         addr += TEST_MEM_PAGE_SIZE) {
        /* The guest writes to the page's first byte */
        qtest_writeq(from, addr + 8, TLM_MARKER_VALUE);
    }
}

bool tlm_guest_runs(QTestState *who)
{
    QDict *rsp = qtest_qmp_assert_success_ref(
        who, "{ 'execute': 'query-status' }");
    bool running = qdict_get_bool(rsp, "running");

    qobject_unref(rsp);
    return running;
}

void tlm_check_guest_runs(QTestState *who)
{
    int64_t start_us = g_get_monotonic_time();
    uint8_t byte;

    while (!tlm_guest_runs(who)) {
        tlm_more_time(start_us);
    }
    byte = qtest_readb(who, X86_TEST_MEM_START);
    while (qtest_readb(who, X86_TEST_MEM_START) == byte) {
        tlm_more_time(start_us);
    }
}
