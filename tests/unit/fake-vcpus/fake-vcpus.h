/*
 * Stands in for what throttle.c needs of QEMU: vCPUs, a clock and a timer of
 * the main loop, which test-throttle.c moves by hand.  There is nothing in
 * here that waits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_FAKE_VCPUS_H
#define TLM_TEST_FAKE_VCPUS_H

#define SCALE_MS 1000000LL

typedef struct CPUState {
    bool stop, stopped;         /* as QEMU has them */
    bool busy;                  /* does not look at @stop for now */
} CPUState;

typedef struct QEMUTimer {
    void (*cb)(void *opaque);
    void *opaque;
    int64_t due_ns;             /* -1: not pending */
} QEMUTimer;

typedef struct QemuMutex { int unused; } QemuMutex;

enum { QEMU_CLOCK_REALTIME, QEMU_CLOCK_VIRTUAL };

extern CPUState fake_cpu[2];
extern bool fake_vm_runs;

#define CPU_FOREACH(cpu) \
    for (cpu = fake_cpu; cpu < fake_cpu + ARRAY_SIZE(fake_cpu); cpu++)
#define QEMU_LOCK_GUARD(m) ((void)(m))
#define WITH_QEMU_LOCK_GUARD(m) if ((void)(m), true)

static inline void qemu_mutex_init(QemuMutex *m) { }
static inline void bql_lock(void) { }
static inline void bql_unlock(void) { }
static inline void trace_tlm_throttle(unsigned permille) { }

int64_t qemu_clock_get_ns(int clock);
void qemu_clock_enable(int clock, bool enabled);
QEMUTimer *timer_new_ns(int clock, void (*cb)(void *), void *opaque);
void timer_mod_ns(QEMUTimer *t, int64_t due_ns);
void timer_mod_anticipate_ns(QEMUTimer *t, int64_t due_ns);
void timer_del(QEMUTimer *t);
void qemu_cpu_kick(CPUState *cpu);
void resume_all_vcpus(void);
bool runstate_is_running(void);

#endif
