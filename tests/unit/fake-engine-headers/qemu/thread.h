/*
 * Stands in for QEMU's qemu/thread.h where the engine is tested without QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_THREAD_H
#define TLM_TEST_THREAD_H

#include <pthread.h>

typedef struct QemuMutex { pthread_mutex_t m; } QemuMutex;
typedef struct QemuCond { pthread_cond_t c; } QemuCond;
typedef struct QemuThread { pthread_t t; } QemuThread;

enum { QEMU_THREAD_JOINABLE };

static inline void qemu_mutex_init(QemuMutex *mutex)
{
    g_assert(!pthread_mutex_init(&mutex->m, NULL));
}

static inline void qemu_mutex_destroy(QemuMutex *mutex)
{
    /* fails if it is held */
    g_assert(!pthread_mutex_destroy(&mutex->m));
}

static inline void qemu_mutex_lock(QemuMutex *mutex)
{
    g_assert(!pthread_mutex_lock(&mutex->m));
}

static inline void qemu_mutex_unlock(QemuMutex *mutex)
{
    g_assert(!pthread_mutex_unlock(&mutex->m));
}

static inline void qemu_cond_init(QemuCond *cond)
{
    g_assert(!pthread_cond_init(&cond->c, NULL));
}

static inline void qemu_cond_destroy(QemuCond *cond)
{
    g_assert(!pthread_cond_destroy(&cond->c));
}

static inline void qemu_cond_signal(QemuCond *cond)
{
    pthread_cond_signal(&cond->c);
}

static inline void qemu_cond_broadcast(QemuCond *cond)
{
    pthread_cond_broadcast(&cond->c);
}

static inline void qemu_cond_wait(QemuCond *cond, QemuMutex *mutex)
{
    g_assert(!pthread_cond_wait(&cond->c, &mutex->m));
}

/* False: the time is over */
static inline bool qemu_cond_timedwait(QemuCond *cond, QemuMutex *mutex,
                                       int ms)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    return pthread_cond_timedwait(&cond->c, &mutex->m, &until) != ETIMEDOUT;
}

static inline void qemu_thread_create(QemuThread *thread, const char *name,
                                      void *(*run)(void *), void *opaque,
                                      int mode)
{
    g_assert(!pthread_create(&thread->t, NULL, run, opaque));
}

static inline void *qemu_thread_join(QemuThread *thread)
{
    void *ret;

    g_assert(!pthread_join(thread->t, &ret));
    return ret;
}

#endif
