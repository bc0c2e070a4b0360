/*
 * TLM: slowing the guest by pausing all vCPUs but for short pulses
 *
 * QEMU's cpu-throttle puts each vCPU thread to sleep for up to a second at
 * a stretch, during which it serves no queued work: every sync of the
 * dirty log then waits for it.  Here the vCPUs are paused as for "stop",
 * which serves queued work, while the run state stays "running"; and they
 * run for a share of every period.  The guest sees stolen time: its clocks
 * run on, its timers are late.
 *
 * Only the main loop pauses and resumes: so do a reset and whoever else
 * pauses the vCPUs for a while, and a resume in the middle of that would
 * be fatal.  Whoever stops the VM for good (switchover, QMP "stop") wins:
 * resume_all_vcpus() does nothing unless the run state is "running".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "system/cpus.h"
#include "internal.h"
#include "trace.h"

#define PERIOD_NS (100 * SCALE_MS)
#define PERIOD_MAX_NS (500 * SCALE_MS)
/* The kernel's timers and the BQL make a shorter pulse meaningless */
#define PULSE_MIN_NS (1 * SCALE_MS)

static struct {
    QEMUTimer *timer;           /* of the main loop */
    bool paused;                /* by us; BQL */
    bool pausing;               /* the main loop waits for the vCPUs; BQL */
    QemuCond done_pausing;      /* BQL */
    bool ended;                 /* the VM is being stopped; BQL */
    QemuMutex lock;             /* taken inside the BQL; protects the rest */
    double speed;               /* wanted, 0..1 */
    int64_t paused_ns;          /* sum, all ended pauses */
    int64_t pause_begin_ns;     /* of the pause that has not ended; or 0 */
} throttle;

static void __attribute__((constructor)) throttle_init(void)
{
    qemu_mutex_init(&throttle.lock);
    qemu_cond_init(&throttle.done_pausing);
    throttle.speed = 1;
}

/* Ends the pause, or begins one, for the books */
static void account(bool pause)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    QEMU_LOCK_GUARD(&throttle.lock);
    if (pause && !throttle.pause_begin_ns) {
        throttle.pause_begin_ns = now_ns;
    } else if (!pause && throttle.pause_begin_ns) {
        throttle.paused_ns += now_ns - throttle.pause_begin_ns;
        throttle.pause_begin_ns = 0;
    }
}

/* Main loop, BQL held */
static void throttle_tick(void *opaque)
{
    int64_t run_ns, next_ns;
    double speed;

    WITH_QEMU_LOCK_GUARD(&throttle.lock) {
        speed = throttle.speed;
    }
    if (speed > 0 && throttle.paused) {
        tlm_tell_guest_paused(throttle.pause_begin_ns);
    }
    if (speed >= 1) {
        if (throttle.paused) {
            throttle.paused = false;
            resume_all_vcpus();
            account(false);
        }
        return;
    }

    run_ns = MAX(PULSE_MIN_NS, (int64_t)(PERIOD_NS * speed));
    if (speed > 0 && throttle.paused) {
        throttle.paused = false;
        resume_all_vcpus();
        account(false);
        next_ns = run_ns;
    } else {
        /* At speed 0, again and again: "stop" and "cont" may come between */
        throttle.pausing = true;
        pause_all_vcpus();
        throttle.pausing = false;
        throttle.paused = true;
        qemu_cond_broadcast(&throttle.done_pausing);
        if (throttle.ended) {
            return;             /* since: it waits without the BQL */
        }
        account(true);
        next_ns = speed > 0 ? MIN(run_ns / speed, PERIOD_MAX_NS) - run_ns :
                              PERIOD_NS;
    }
    /* Unless it is due earlier: set while this waited for the vCPUs */
    timer_mod_anticipate_ns(throttle.timer,
                            qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + next_ns);
}

/*
 * Run the vCPUs at @speed, 0 (paused) to 1 (full).  Returns at once; no
 * locks needed.
 */
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

/*
 * End it.  With @keep_paused the vCPUs stay as they are, because the caller
 * is about to stop the VM, and the pause is over for the books: from here
 * on it counts as downtime.  A main loop that is waiting for the vCPUs to
 * pause is waited for: if the VM were stopped and, on an error, started
 * meanwhile, it would wait for ever.  Else the main loop sees to it that they
 * run at full speed, if the VM is running.  Called without the BQL;
 * idempotent.
 */
void tlm_throttle_end(bool keep_paused)
{
    if (keep_paused) {
        bql_lock();
        throttle.ended = true;
        timer_del(throttle.timer);
        while (throttle.pausing) {
            qemu_cond_wait_bql(&throttle.done_pausing);
        }
        account(false);
        bql_unlock();
        return;
    }
    WITH_QEMU_LOCK_GUARD(&throttle.lock) {
        throttle.speed = 1;
    }
    timer_mod_ns(throttle.timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
}

/* A new migration begins; BQL held */
void tlm_throttle_reset(void)
{
    if (!throttle.timer) {
        throttle.timer = timer_new_ns(QEMU_CLOCK_REALTIME, throttle_tick,
                                      NULL);
    }
    throttle.ended = false;
    QEMU_LOCK_GUARD(&throttle.lock);
    throttle.speed = 1;
    throttle.paused_ns = 0;
}

/* How long the vCPUs have been paused in this migration, in ns */
int64_t tlm_throttle_paused_ns(void)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    QEMU_LOCK_GUARD(&throttle.lock);

    return throttle.paused_ns +
           (throttle.pause_begin_ns ? now_ns - throttle.pause_begin_ns : 0);
}
