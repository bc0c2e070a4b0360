/*
 * TLM checkpoint: stops the guest for a moment, and lets it go on
 *
 * To hold the BQL does not say that nobody is about to change the guest: the
 * main loop drops it in the middle of a reset, or of "stop", to wait for the
 * vCPUs.  What is saved, or started, then is half of one state and half of
 * another.  So the main loop waits where it has nothing half done.
 *
 * It goes on where the manager is waited for, or RAM is written in the pause.
 * Then others may want something of the guest:
 *
 *   stop, an I/O error, the watchdog, a panic   it is stopped afterwards, too
 *   cont                                        it runs; the checkpoint fails
 *   a reset, loadvm, the guest's own suspend    done; the checkpoint fails
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "block/aio.h"
#include "migration/migration.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "../internal.h"
#include "pause.h"

static struct {
    QemuSemaphore waits;        /* the main loop does */
    QemuSemaphore go_on;        /* it may */
    /* BQL */
    RunState before;
    VMChangeStateEntry *watch;
    const char *moved;          /* what has become of the guest; NULL: still */
} state;

static void __attribute__((constructor)) init(void)
{
    qemu_sem_init(&state.waits, 0);
    qemu_sem_init(&state.go_on, 0);
}

/* Main loop */
static void wait_here(void *opaque)
{
    qemu_sem_post(&state.waits);
    bql_unlock();
    qemu_sem_wait(&state.go_on);
    bql_lock();
}

void tlm_pause_take_bql(void)
{
    /* Not where somebody polls the block layer's, in the middle of something */
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), wait_here, NULL);
    qemu_sem_wait(&state.waits);
    bql_lock();
}

void tlm_pause_drop_bql(void)
{
    qemu_sem_post(&state.go_on);
    bql_unlock();
}

static void state_changed(void *opaque, bool running, RunState new_state)
{
    if (running) {
        state.moved = "started";
    }
}

static void was_reset(void *opaque)
{
    state.moved = "reset";
}

int tlm_pause_begin(void)
{
    int ret = 0;

    state.before = runstate_get();
    if (runstate_is_live(state.before)) {
        ret = vm_stop(RUN_STATE_SAVE_VM);
    }
    state.moved = NULL;
    state.watch = qemu_add_vm_change_state_handler(state_changed, NULL);
    qemu_register_reset(was_reset, NULL);
    return ret;
}

int tlm_pause_check(MigrationState *s)
{
    if (runstate_check(RUN_STATE_SUSPENDED)) {
        state.moved = "suspended";
    }
    if (state.moved) {
        tlm_fail(s, "The guest was %s in the pause of the checkpoint",
                 state.moved);
        return -EINVAL;
    }
    return 0;
}

void tlm_pause_end(void)
{
    RunState wanted;

    qemu_unregister_reset(was_reset, NULL);
    qemu_del_vm_change_state_handler(state.watch);
    /* The main loop may not have come to it; a start would drop the request */
    if (qemu_vmstop_requested(&wanted)) {
        vm_stop(wanted);
    }
    if (runstate_check(RUN_STATE_SUSPENDED)) {
        /* As it had asked for before the pause: the devices do not know */
        vm_set_suspended(true);
        vm_start();
    } else if (runstate_check(RUN_STATE_SAVE_VM)) {
        vm_resume(state.before);
    }
}
