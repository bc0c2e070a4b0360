/*
 * TLM checkpoint: threads that share the work of a pause
 *
 * They are started before the pause, and wait.  With vCPUs paused the host
 * CPUs are free for them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "crew.h"

/* More hardly copy faster: a few threads use up a host's memory bandwidth */
#define CREW_MAX 8

struct TlmCrew {
    QemuThread thread[CREW_MAX];
    unsigned num;

    void (*work)(void *opaque, unsigned long part);
    void *opaque;
    unsigned long parts, next;  /* next: atomic */

    QemuMutex lock;             /* protects what follows */
    QemuCond begin, end;
    unsigned job;               /* number of the job */
    unsigned busy;              /* threads that have not done with it */
    bool quit;
};

static void do_parts(TlmCrew *crew)
{
    unsigned long part;

    while ((part = qatomic_fetch_inc(&crew->next)) < crew->parts) {
        crew->work(crew->opaque, part);
    }
}

static void *crew_thread(void *opaque)
{
    TlmCrew *crew = opaque;
    unsigned job = 0;

    QEMU_LOCK_GUARD(&crew->lock);
    while (true) {
        while (!crew->quit && crew->job == job) {
            qemu_cond_wait(&crew->begin, &crew->lock);
        }
        if (crew->quit) {
            return NULL;
        }
        job = crew->job;
        qemu_mutex_unlock(&crew->lock);
        do_parts(crew);
        qemu_mutex_lock(&crew->lock);
        if (--crew->busy == 0) {
            qemu_cond_signal(&crew->end);
        }
    }
}

TlmCrew *tlm_crew_new(void)
{
    TlmCrew *crew = g_new0(TlmCrew, 1);

    qemu_mutex_init(&crew->lock);
    qemu_cond_init(&crew->begin);
    qemu_cond_init(&crew->end);
    /* It counts the CPUs of this thread's affinity */
    crew->num = MIN(g_get_num_processors() - 1, CREW_MAX);
    for (unsigned i = 0; i < crew->num; i++) {
        qemu_thread_create(&crew->thread[i], "mig/src/copy", crew_thread,
                           crew, QEMU_THREAD_JOINABLE);
    }
    return crew;
}

void tlm_crew_free(TlmCrew *crew)
{
    if (!crew) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&crew->lock) {
        crew->quit = true;
        qemu_cond_broadcast(&crew->begin);
    }
    for (unsigned i = 0; i < crew->num; i++) {
        qemu_thread_join(&crew->thread[i]);
    }
    qemu_cond_destroy(&crew->begin);
    qemu_cond_destroy(&crew->end);
    qemu_mutex_destroy(&crew->lock);
    g_free(crew);
}

void tlm_crew_do(TlmCrew *crew, unsigned long parts,
                 void (*work)(void *opaque, unsigned long part),
                 void *opaque)
{
    crew->work = work;
    crew->opaque = opaque;
    crew->parts = parts;
    crew->next = 0;
    WITH_QEMU_LOCK_GUARD(&crew->lock) {
        crew->job++;
        crew->busy = crew->num;
        qemu_cond_broadcast(&crew->begin);
    }
    do_parts(crew);
    QEMU_LOCK_GUARD(&crew->lock);
    while (crew->busy) {
        qemu_cond_wait(&crew->end, &crew->lock);
    }
}
