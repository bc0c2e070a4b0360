/*
 * TLM checkpoint: a migration after which the guest goes on here
 *
 *   live stage     as of any migration
 *   prepare        memory for what is owed, with the guest running
 *   pause          stop the guest, [wait for the manager], device state into
 *                  memory, read the dirty log, copy what is owed, or
 *                  write-protect it, [overlays on the disks]; go on
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
#include "io/channel-buffer.h"
#include "io/channel-file.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "../placement.h"
#include "../throttle.h"
#include "checkpoint.h"
#include "disks.h"
#include "gate.h"
#include "keep.h"
#include "options.h"
#include "pause.h"

/* Of a guest's devices: it grows if they are more */
#define DEVICE_STATE_BYTES (512 * 1024)

/* From the live stage to the cleanup; coordinator */
static TlmKeep *keep;

void tlm_checkpoint_live(TlmMigration *m)
{
    const MigrationTlmCheckpointOptions *o = tlm_checkpoint_options();

    if (!keep) {
        keep = tlm_keep_new(&m->ram, o->mode, o->buffer_size);
    }
    tlm_keep_expect(keep);
}

static void set_note(TlmMigration *m, const char *note)
{
    QEMU_LOCK_GUARD(&m->lock);
    g_strlcpy(m->note, note ?: "", sizeof(m->note));
}

uint64_t tlm_checkpoint_capacity(void)
{
    return keep ? tlm_keep_capacity(keep) : 0;
}

bool tlm_checkpoint_try(void)
{
    return tlm_keep_try(keep);
}

void tlm_checkpoint_prepare(TlmMigration *m)
{
    g_autofree char *why = NULL;

    tlm_checkpoint_live(m);
    why = tlm_keep_prepare(keep, migrate_downtime_limit());
    m->copy_rate = tlm_keep_rate(keep);
    set_note(m, why);
}

/* All that is owed, in a section of RAM; no locks */
static int send_section(TlmMigration *m, MigrationState *s)
{
    int ret, broken;

    /* The pacer keeps the cap; QEMU's would keep the section from coming */
    migration_rate_reset();
    ret = qemu_savevm_state_iterate(s->to_dst_file, false);
    /* A stream that is broken passes for one at its cap: no section, and 0 */
    broken = qemu_file_get_error(s->to_dst_file);
    if (ret >= 0 && broken) {
        return broken;
    }
    return ret >= 0 && tlm_engine_cancelled(m->engine) ? -ECANCELED : ret;
}

/* The guest is stopped; BQL held, and dropped while pages are sent */
static int send_owed(TlmMigration *m, MigrationState *s)
{
    int ret;

    tlm_pause_drop_bql();
    ret = send_section(m, s);
    tlm_pause_take_bql();
    return ret < 0 ? ret : tlm_pause_check(s);
}

/* BQL held; the last thing in the pause, so that little can fail after it */
static int switch_disks(TlmMigration *m, MigrationState *s)
{
    Error *err = NULL;

    if (!tlm_disks_switch(tlm_checkpoint_options()->disks, &err)) {
        error_prepend(&err, "The disks stay as they are: ");
        tlm_fail(s, "%s", error_get_pretty(err));
        error_free(err);
        return -EIO;
    }
    m->disks_switched = true;
    tlm_mark(m, TLM_MARK_DISKS);
    return 0;
}

/* BQL held; the guest is stopped, and runs as before afterwards */
static int pause_guest(TlmMigration *m, MigrationState *s,
                       QEMUFile *devices)
{
    Error *err = NULL;
    int ret;

    if (!tlm_gate_pass(s, tlm_checkpoint_options()->gate_timeout)) {
        return -ECANCELED;
    }
    ret = tlm_pause_check(s);
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
    m->stopped_pages = ram_get_total_transferred_pages();
    if (tlm_keep_ready(keep)) {
        /* Later it would swallow writes that come after the pause */
        tlm_engine_arm(m->engine);
        m->method = tlm_keep_take(keep);
        m->sink.keep = keep;
        tlm_engine_keep_cap(m->engine);
    } else {
        set_note(m, tlm_keep_why_not(keep));
    }
    if (m->method == MIGRATION_TLM_CHECKPOINT_METHOD_WRITE) {
        ret = send_owed(m, s);
    }
    tlm_mark(m, TLM_MARK_RAM);
    if (ret >= 0 && tlm_checkpoint_options()->has_disks) {
        ret = switch_disks(m, s);
    }
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

static int send_kept(TlmMigration *m, MigrationState *s)
{
    int ret;

    tlm_keep_begin(keep);
    do {
        ret = send_section(m, s);
        if (ret >= 0 && !tlm_keep_sent(keep)) {
            tlm_fail(s, "RAM could not be write-protected any longer");
            ret = -EIO;
        }
        m->faults = tlm_keep_faults(keep);
        m->copied_bytes = tlm_keep_copied(keep);
    } while (ret >= 0 && tlm_engine_owed(m->engine));
    tlm_keep_let_go(keep);
    return ret;
}

static int flush(TlmMigration *m, MigrationState *s,
                 const QIOChannelBuffer *buffer)
{
    int ret = 0;

    qemu_savevm_maybe_send_switchover_start(s->to_dst_file);
    if (m->sink.keep) {
        ret = send_kept(m, s);
    }
    if (ret >= 0 && tlm_engine_owed(m->engine)) {
        tlm_fail(s, "Internal error: %" PRIu64 " pages of the checkpoint "
                 "have not been written", tlm_engine_owed(m->engine));
        ret = -EINVAL;
    }
    if (ret >= 0) {
        ret = qemu_savevm_state_complete_precopy_iterable(s->to_dst_file,
                                                          false);
    }
    if (ret >= 0) {
        qemu_put_buffer(s->to_dst_file, buffer->data, buffer->usage);
        ret = qemu_fflush(s->to_dst_file);
    }
    if (ret >= 0 && tlm_checkpoint_options()->sync) {
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
    int ret;

    m->disks_asked = tlm_checkpoint_options()->has_disks;
    tlm_pause_take_bql();
    s->downtime_start = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    global_state_store();
    ret = tlm_pause_begin();
    tlm_mark(m, TLM_MARK_STOPPED);
    tlm_set_stage(m, MIGRATION_TLM_STAGE_STOP);
    if (ret >= 0) {
        ret = pause_guest(m, s, devices);
    }
    /* Everybody as before: it has been, or will not be, of the pause */
    tlm_throttle_end(false);
    tlm_placement_end();
    tlm_pause_end();
    /* In ms, as QEMU counts; 0 would mean that it is not known yet */
    s->downtime = MAX(1, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) -
                         s->downtime_start);
    /* Nobody is to start it once more at the end */
    s->vm_old_state = RUN_STATE_PAUSED;
    tlm_mark(m, TLM_MARK_RESUMED);
    if (ret < 0) {
        tlm_keep_let_go(keep);
    } else {
        tlm_set_stage(m, MIGRATION_TLM_STAGE_FLUSH);
    }
    tlm_pause_drop_bql();
    if (ret >= 0) {
        ret = flush(m, s, buffer);
    }
    if (ret < 0 && m->disks_switched) {
        warn_report("The checkpoint has failed or was cancelled, and the "
                    "disks stay on its overlays");
    }
    qemu_fclose(devices);
    return ret;
}

void tlm_checkpoint_cleanup(void)
{
    /* Not before: a channel that is broken may have read from them */
    g_clear_pointer(&keep, tlm_keep_free);
}
