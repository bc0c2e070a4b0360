/*
 * TLM: tells a guest under KVM that it was paused
 *
 * Seen from inside, a vCPU that does not run for long is a CPU that hangs in
 * its kernel.  Linux reports a soft lockup as soon as it runs again, after
 * 20 s by default, and panics if it is set up to.  KVM_KVMCLOCK_CTRL makes KVM
 * set PVCLOCK_GUEST_STOPPED in the vCPU's clock when it enters the vCPU next.
 * A guest that finds this flag starts its watchdogs anew.  QEMU issues this
 * ioctl when a stopped VM is started (hw/i386/kvm/clock.c).  A pause of
 * throttle.c leaves the run state as it is, so this file issues it then.
 *
 * Only kvmclock, and so only KVM on x86, has such a flag.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "hw/core/cpu.h"
#include "system/kvm.h"
#include "throttle.h"
#include "trace.h"

/*
 * The shortest watchdog that Linux can be set to (kernel.watchdog_thresh 1)
 * waits for twice as long.
 */
#define UNTOLD_MAX_NS (1 * NANOSECONDS_PER_SECOND)
/*
 * The flag also hides a kernel that really hangs, so a guest that runs for
 * this part of the time is not told.  Such a guest would have to spend 2 s of
 * its own without a schedule to be reported after 20.  At the slowest speed
 * that the planner asks for, 2/1000, 40 ms would do.
 */
#define SPEED_UNTOLD 0.1

/* BQL */
static struct {
    int64_t until_ns;           /* when the last pause ended */
    int64_t untold_ns;          /* pauses, less what the guest ran for */
} pauses;

static void tell(CPUState *cpu, run_on_cpu_data data)
{
    int ret = kvm_vcpu_ioctl(cpu, KVM_KVMCLOCK_CTRL, 0);

    /* EINVAL: this vCPU does not use the clock, and cannot be told */
    if (ret && ret != -EINVAL) {
        warn_report_once("Cannot tell the guest that it was paused: %s",
                         strerror(-ret));
    }
}

/*
 * The vCPUs are about to be resumed.  They have been paused since @since_ns of
 * QEMU_CLOCK_REALTIME (0: they are not paused).  Tells the guest if pauses
 * have taken most of the time for long.  Main loop, BQL held.  Does not wait:
 * each vCPU's own thread issues the ioctl before it runs the vCPU again.
 */
void tlm_tell_guest_paused(int64_t since_ns)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    double ran_ns = since_ns - pauses.until_ns;
    CPUState *cpu;

    if (!since_ns) {
        return;
    }
    pauses.until_ns = now_ns;
    pauses.untold_ns = now_ns - since_ns +
        MAX(0, pauses.untold_ns - ran_ns * (1 / SPEED_UNTOLD - 1));
    if (pauses.untold_ns < UNTOLD_MAX_NS || !kvm_enabled() ||
        !kvm_check_extension(kvm_state, KVM_CAP_KVMCLOCK_CTRL)) {
        return;
    }
    trace_tlm_guest_paused(pauses.untold_ns / SCALE_MS);
    pauses.untold_ns = 0;
    CPU_FOREACH(cpu) {
        async_run_on_cpu(cpu, tell, RUN_ON_CPU_NULL);
    }
}
