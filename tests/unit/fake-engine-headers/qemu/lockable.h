/*
 * Stands in for QEMU's qemu/lockable.h where the engine is tested without
 * QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_LOCKABLE_H
#define TLM_TEST_LOCKABLE_H

#include "qemu/thread.h"

typedef QemuMutex TestLockGuard;

static inline QemuMutex *test_lock_guard(QemuMutex *mutex)
{
    qemu_mutex_lock(mutex);
    return mutex;
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(TestLockGuard, qemu_mutex_unlock)

#define TEST_GUARD_NAME_(counter) test_guard_##counter
#define TEST_GUARD_NAME(counter) TEST_GUARD_NAME_(counter)

#define QEMU_LOCK_GUARD(mutex) \
    g_autoptr(TestLockGuard) TEST_GUARD_NAME(__COUNTER__) G_GNUC_UNUSED = \
        test_lock_guard(mutex)
#define WITH_QEMU_LOCK_GUARD(mutex) \
    for (g_autoptr(TestLockGuard) guard_ = test_lock_guard(mutex); guard_; \
         qemu_mutex_unlock(guard_), guard_ = NULL)

#endif
