/*
 * TLM checkpoint: a migration after which the guest goes on here
 *
 *   live stage     as of any migration
 *   prepare        memory for what is owed, with the guest running
 *   pause          stop the guest, [wait for the manager], device state into
 *                  memory, read the dirty log, copy what is owed, or
 *                  write-protect it; go on
 *   flush          the copies, the end of RAM, the device state
 *
 * In the pause nothing is sent, so that it does not last longer because of
 * where the checkpoint goes.  Whoever receives it cannot tell it from a
 * migration by multifd.
 *
 * Without enough memory for the copies what is owed is sent in the pause.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-commands-migration-tlm.h"
#include "io/channel-buffer.h"
#include "io/channel-file.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "system/runstate.h"
#include "../placement.h"
#include "../throttle.h"
#include "checkpoint.h"
#include "copies.h"
#include "protect.h"

/*
 * What one thread copies, for the choice of a method: measured were 7 to 13
 * GB/s.  With more, a pause would be longer than it may be on a slower host.
 */
#define COPY_BYTES_PER_MS 4e6
/* Of a guest's devices: it grows if they are more */
#define DEVICE_STATE_BYTES (512 * 1024)

static struct {
    bool asked;                 /* BQL */
    uint64_t buffer_limit;
    bool caps[MIGRATION_CAPABILITY__MAX];   /* before it was asked for */
    MigrationTlmCheckpointMode mode;
    /* Coordinator */
    TlmCopies *copies;
    TlmProtect *protect;
} ckpt;

bool tlm_checkpoint_asked(void)
{
    return ckpt.asked;
}

/* Would copying take longer than the guest may be paused for? */
static bool wants_protection(const TlmMigration *m)
{
    double owed = tlm_bytes(m, tlm_engine_owed(m->engine));

    switch (ckpt.mode) {
    case MIGRATION_TLM_CHECKPOINT_MODE_COPY:
        return false;
    case MIGRATION_TLM_CHECKPOINT_MODE_WRITE_PROTECT:
        return true;
    default:
        return owed / COPY_BYTES_PER_MS > migrate_downtime_limit();
    }
}

void tlm_checkpoint_prepare(TlmMigration *m)
{
    g_autoptr(GError) why = NULL;

    ckpt.copies = tlm_copies_new(&m->ram, ckpt.buffer_limit, &why);
    if (ckpt.copies && wants_protection(m)) {
        ckpt.protect = tlm_protect_new(&m->ram, ckpt.copies, &why);
    }
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        g_strlcpy(m->note, why ? why->message : "", sizeof(m->note));
    }
}

/*
 * The BQL was dropped in the pause: has somebody started the guest?  Then RAM
 * is not of one moment any more.
 */
static int check_stands_still(MigrationState *s)
{
    if (runstate_is_running()) {
        tlm_fail(s, "The guest was started in the pause of the checkpoint");
        return -EINVAL;
    }
    return 0;
}

/* All that is owed, in a section of RAM; no locks */
static int send_section(TlmMigration *m, MigrationState *s)
{
    int ret = qemu_savevm_state_iterate(s->to_dst_file, false);

    return ret >= 0 && tlm_engine_cancelled(m->engine) ? -ECANCELED : ret;
}

/* The guest is stopped; BQL held, and dropped while pages are sent */
static int send_owed(TlmMigration *m, MigrationState *s)
{
    int ret;

    bql_unlock();
    migration_rate_reset();
    ret = send_section(m, s);
    bql_lock();
    return ret < 0 ? ret : check_stands_still(s);
}

/* What is owed stays as it is now, whatever the guest writes afterwards */
static void keep_owed(TlmMigration *m)
{
    if (ckpt.protect && tlm_protect_take(ckpt.protect)) {
        m->method = MIGRATION_TLM_CHECKPOINT_METHOD_WRITE_PROTECT;
    } else {
        tlm_copies_take(ckpt.copies);
        m->method = MIGRATION_TLM_CHECKPOINT_METHOD_COPY;
    }
    m->sink.copies = ckpt.copies;
    tlm_engine_keep_cap(m->engine);
}

/* BQL held; the guest is stopped, and runs as before afterwards */
static int pause_guest(TlmMigration *m, MigrationState *s,
                       QEMUFile *devices)
{
    Error *err = NULL;
    int ret;

    if (!migration_switchover_prepare(s)) {
        return -ECANCELED;
    }
    ret = check_stands_still(s);
    if (ret < 0) {
        return ret;
    }
    tlm_mark(m, TLM_MARK_SWITCHOVER);
    /* Free pages that are told of from now on were in use in the pause */
    if (precopy_notify(PRECOPY_NOTIFY_COMPLETE, &err)) {
        error_report_err(err);
    }
    ret = qemu_savevm_state_complete_precopy_non_iterable(devices, false);
    if (!ret) {
        ret = qemu_fflush(devices);
    }
    if (ret < 0) {
        return ret;
    }
    tlm_mark(m, TLM_MARK_DEVICE);
    tlm_engine_take_rest(m->engine);
    ret = tlm_sync_log(m);
    if (ret < 0) {
        return ret;
    }
    tlm_mark(m, TLM_MARK_SYNCED);
    if (ckpt.copies && tlm_copies_fit(ckpt.copies)) {
        /* Later it would swallow writes that come after the pause */
        tlm_engine_arm(m->engine);
        keep_owed(m);
    }
    if (m->method == MIGRATION_TLM_CHECKPOINT_METHOD_WRITE) {
        ret = send_owed(m, s);
    }
    tlm_mark(m, TLM_MARK_RAM);
    return ret;
}

/* What is written is on the disk, and not only in the kernel's memory */
static int make_durable(MigrationState *s)
{
    QIOChannel *ioc = qemu_file_get_ioc(s->to_dst_file);
    int ret;

    if (!object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_FILE) ||
        qemu_fdatasync(QIO_CHANNEL_FILE(ioc)->fd) == 0) {
        return 0;
    }
    ret = -errno;
    tlm_fail(s, "The checkpoint cannot be written to the disk: %s",
             strerror(errno));
    return ret;
}

static int flush(TlmMigration *m, MigrationState *s,
                 const QIOChannelBuffer *buffer)
{
    int ret = 0;

    if (m->method == MIGRATION_TLM_CHECKPOINT_METHOD_WRITE_PROTECT) {
        if (!tlm_protect_copy(ckpt.protect)) {
            tlm_fail(s, "RAM could not be write-protected any longer");
            return -EIO;
        }
        m->faults = tlm_protect_faults(ckpt.protect);
        g_clear_pointer(&ckpt.protect, tlm_protect_free);
    }
    m->copied_bytes = ckpt.copies ? tlm_copies_bytes(ckpt.copies) : 0;
    qemu_savevm_maybe_send_switchover_start(s->to_dst_file);
    if (m->sink.copies) {
        ret = send_section(m, s);
    }
    if (ret >= 0) {
        ret = qemu_savevm_state_complete_precopy_iterable(s->to_dst_file,
                                                          false);
    }
    if (ret >= 0) {
        qemu_put_buffer(s->to_dst_file, buffer->data, buffer->usage);
        ret = qemu_fflush(s->to_dst_file);
    }
    if (ret >= 0) {
        ret = make_durable(s);
    }
    return ret;
}

int tlm_checkpoint_complete(TlmMigration *m, MigrationState *s)
{
    g_autoptr(QIOChannelBuffer) buffer =
        qio_channel_buffer_new(DEVICE_STATE_BYTES);
    /* The devices' state is of the pause, and goes behind RAM */
    QEMUFile *devices = qemu_file_new_output(QIO_CHANNEL(buffer));
    RunState old;
    int ret = 0;

    bql_lock();
    old = runstate_get();
    s->downtime_start = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    global_state_store();
    if (runstate_is_live(old)) {
        ret = vm_stop(RUN_STATE_SAVE_VM);
    }
    tlm_mark(m, TLM_MARK_STOPPED);
    tlm_set_stage(m, MIGRATION_TLM_STAGE_STOP);
    if (ret >= 0) {
        ret = pause_guest(m, s, devices);
    }
    /* Everybody as before: it has been, or will not be, of the pause */
    tlm_throttle_end(false);
    tlm_placement_end();
    if (runstate_check(RUN_STATE_SAVE_VM)) {
        vm_resume(old);
    }
    /* In ms, as QEMU counts; 0 would mean that it is not known yet */
    s->downtime = MAX(1, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) -
                         s->downtime_start);
    /* Nobody is to start it once more at the end */
    s->vm_old_state = RUN_STATE_PAUSED;
    tlm_mark(m, TLM_MARK_RESUMED);
    if (ret < 0) {
        g_clear_pointer(&ckpt.protect, tlm_protect_free);
    } else {
        tlm_set_stage(m, MIGRATION_TLM_STAGE_FLUSH);
    }
    bql_unlock();
    if (ret >= 0) {
        ret = flush(m, s, buffer);
    }
    qemu_fclose(devices);
    return ret;
}

/* The end, good or bad, when all has been cleaned up; BQL held */
static int notified(NotifierWithReturn *n, MigrationEvent *e, Error **errp)
{
    if (ckpt.asked && e->type != MIG_EVENT_PRECOPY_SETUP) {
        /* Not before: a channel that is broken may have read from them */
        g_clear_pointer(&ckpt.protect, tlm_protect_free);
        g_clear_pointer(&ckpt.copies, tlm_copies_free);
        ckpt.asked = false;
        memcpy(migrate_get_current()->capabilities, ckpt.caps,
               sizeof(ckpt.caps));
    }
    return 0;
}

static bool set_capabilities(const char *uri, Error **errp)
{
    MigrationState *s = migrate_get_current();
    bool caps[MIGRATION_CAPABILITY__MAX];

    memcpy(caps, s->capabilities, sizeof(caps));
    caps[MIGRATION_CAPABILITY_TLM] = true;
    caps[MIGRATION_CAPABILITY_MULTIFD] = true;
    caps[MIGRATION_CAPABILITY_MAPPED_RAM] = g_str_has_prefix(uri, "file:");
    if (!migrate_caps_check(s->capabilities, caps, errp)) {
        return false;
    }
    memcpy(ckpt.caps, s->capabilities, sizeof(caps));
    memcpy(s->capabilities, caps, sizeof(caps));
    return true;
}

void qmp_tlm_checkpoint(const char *uri, bool has_mode,
                        MigrationTlmCheckpointMode mode, bool has_buffer_size,
                        uint64_t buffer_size, Error **errp)
{
    static NotifierWithReturn notifier;
    Error *err = NULL;

    if (migration_is_running() || ckpt.asked) {
        error_setg(errp, "There's a migration process in progress");
        return;
    }
    if (!qemu_savevm_state_only_ram(errp) || !set_capabilities(uri, errp)) {
        return;
    }
    if (!notifier.notify) {
        migration_add_notifier(&notifier, notified);
    }
    ckpt.asked = true;
    ckpt.mode = has_mode ? mode : MIGRATION_TLM_CHECKPOINT_MODE_AUTO;
    ckpt.buffer_limit = has_buffer_size ? buffer_size : 0;
    qmp_migrate(uri, false, NULL, false, false, false, false, &err);
    if (err) {
        error_propagate(errp, err);
        ckpt.asked = false;
        memcpy(migrate_get_current()->capabilities, ckpt.caps,
               sizeof(ckpt.caps));
    }
}
