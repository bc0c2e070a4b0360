/*
 * TLM: slows the guest by pausing all vCPUs except for short pulses
 *
 * QEMU's cpu-throttle puts each vCPU thread to sleep for up to a second at a
 * stretch.  A sleeping thread serves no queued work, so every sync of the
 * dirty log waits for it.  Here the vCPUs are paused as for "stop", and serve
 * queued work.  The run state stays "running", and the vCPUs run for a share
 * of every period.  The guest sees stolen time: its clocks run on, its timers
 * are late.
 *
 * Other code pauses and resumes the vCPUs as well: a reset, "stop" and
 * "cont", the switchover, a vCPU that patches the guest's code (vapic.c).
 * There is one flag for all of them, so:
 *
 *   - This code never waits for the vCPUs.  Other code may resume them before
 *     they have paused, and the wait would have no end.  This code asks,
 *     kicks, and looks again.  If it finds them running, it asks again.
 *   - It resumes the vCPUs only if it has seen all of them paused at an
 *     earlier look.  A vCPU that is not paused may itself be waiting for the
 *     others.  If they were resumed, it would wait for ever.
 *   - A VM that other code stops for good (switchover, QMP "stop") stays
 *     stopped: resume_all_vcpus() does nothing unless the run state is
 *     "running".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "hw/core/cpu.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "throttle.h"
#include "trace.h"

#define PERIOD_NS (100 * SCALE_MS)
#define PERIOD_MAX_NS (500 * SCALE_MS)
/* The kernel's timers and the BQL make a shorter pulse meaningless */
#define PULSE_MIN_NS (1 * SCALE_MS)
/* From asking vCPUs to pause to the next look; they take less to pause */
#define LOOK_NS (1 * SCALE_MS)

static struct {
    QEMUTimer *timer;           /* of the main loop */
    enum {
        RUN,                    /* the vCPUs are left alone */
        ASKED,                  /* to pause, but not seen paused yet */
        PAUSED,                 /* seen paused, all of them */
    } state;                    /* BQL */
    int64_t until_ns;           /* BQL; when the pause is to end */
    QemuMutex lock;             /* taken inside the BQL; protects the rest */
    double speed;               /* wanted, 0..1 */
    int64_t paused_ns;          /* sum, all ended pauses */
    int64_t pause_begin_ns;     /* of the pause that has not ended; or 0 */
} throttle;

static void __attribute__((constructor)) throttle_init(void)
{
    qemu_mutex_init(&throttle.lock);
    throttle.speed = 1;
}

/* Account that a pause begins now; none is under way */
static void count_from_now(void)
{
    QEMU_LOCK_GUARD(&throttle.lock);
    throttle.pause_begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

/* Account that the pause ends, if there is one */
static void count_to_now(void)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    QEMU_LOCK_GUARD(&throttle.lock);
    if (throttle.pause_begin_ns) {
        throttle.paused_ns += now_ns - throttle.pause_begin_ns;
        throttle.pause_begin_ns = 0;
    }
}

static bool all_paused(void)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        if (!cpu->stopped) {
            return false;
        }
    }
    return true;
}

static bool none_asked(void)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        if (cpu->stop || cpu->stopped) {
            return false;
        }
    }
    return true;
}

/* As pause_all_vcpus() begins */
static void ask_to_pause(void)
{
    CPUState *cpu;

    qemu_clock_enable(QEMU_CLOCK_VIRTUAL, false);
    CPU_FOREACH(cpu) {
        if (!cpu->stopped) {
            cpu->stop = true;
            qemu_cpu_kick(cpu);
        }
    }
    throttle.state = ASKED;
    count_from_now();
}

static void leave_alone(void)
{
    throttle.state = RUN;
    count_to_now();
}

/*
 * The vCPUs were asked to pause.  @over: they may run again.  Returns how
 * long until the next look, in ns; 0: they run.
 */
static int64_t look(int64_t now_ns, bool over)
{
    if (!all_paused()) {
        /* They have not paused yet, or other code has resumed them */
        if (over && none_asked()) {
            leave_alone();
            return 0;
        }
        if (throttle.state == PAUSED) {
            count_to_now();
        }
        ask_to_pause();
        return LOOK_NS;
    }
    if (throttle.state == ASKED) {
        throttle.state = PAUSED;
    } else if (over) {
        tlm_tell_guest_paused(throttle.pause_begin_ns);
        resume_all_vcpus();
        leave_alone();
        return 0;
    }
    return over ? LOOK_NS : throttle.until_ns - now_ns;
}

/* Main loop, BQL held */
static void throttle_tick(void *opaque)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t run_ns, pause_ns, next_ns;
    double speed;

    WITH_QEMU_LOCK_GUARD(&throttle.lock) {
        speed = throttle.speed;
    }
    if (speed >= 1 && throttle.state == RUN) {
        return;
    }
    run_ns = MAX(PULSE_MIN_NS, (int64_t)(PERIOD_NS * speed));
    pause_ns = speed > 0 ? MIN(run_ns / speed, PERIOD_MAX_NS) - run_ns :
                           PERIOD_NS;

    if (!runstate_is_running()) {
        /* Starting the VM again starts all vCPUs */
        leave_alone();
        next_ns = PERIOD_NS;
    } else if (throttle.state == RUN) {
        throttle.until_ns = now_ns + pause_ns;
        ask_to_pause();
        next_ns = LOOK_NS;
    } else {
        if (speed <= 0) {
            throttle.until_ns = now_ns + pause_ns;
        }
        next_ns = look(now_ns, speed >= 1 || now_ns >= throttle.until_ns);
        if (throttle.state == RUN) {
            next_ns = run_ns;   /* the tick after it finds if that is all */
        }
    }
    /* Unless the timer was set to an earlier time meanwhile */
    timer_mod_anticipate_ns(throttle.timer,
                            qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                            MAX(next_ns, LOOK_NS));
}

void tlm_throttle_set(double speed)
{
    double before;

    WITH_QEMU_LOCK_GUARD(&throttle.lock) {
        before = throttle.speed;
        throttle.speed = speed;
    }
    if (speed != before) {
        trace_tlm_throttle(speed * 1000);
    }
    /* Between two speeds below full, the next pulse is soon enough */
    if ((speed >= 1) != (before >= 1)) {
        timer_mod_ns(throttle.timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    }
}

void tlm_throttle_end(bool keep_paused)
{
    if (keep_paused) {
        bql_lock();
        timer_del(throttle.timer);
        count_to_now();
        bql_unlock();
        return;
    }
    WITH_QEMU_LOCK_GUARD(&throttle.lock) {
        throttle.speed = 1;
    }
    timer_mod_ns(throttle.timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
}

void tlm_throttle_reset(void)
{
    if (!throttle.timer) {
        throttle.timer = timer_new_ns(QEMU_CLOCK_REALTIME, throttle_tick,
                                      NULL);
    }
    QEMU_LOCK_GUARD(&throttle.lock);
    throttle.speed = 1;
    throttle.paused_ns = 0;
}

int64_t tlm_throttle_paused_ns(void)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    QEMU_LOCK_GUARD(&throttle.lock);

    return throttle.paused_ns +
           (throttle.pause_begin_ns ? now_ns - throttle.pause_begin_ns : 0);
}
