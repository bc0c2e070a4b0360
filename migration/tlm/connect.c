/*
 * TLM: ends a migration that does not get connected within its bound
 *
 * QEMU waits for an answer to connect() as long as TCP tries, which is
 * minutes.  It waits without end for a TLS peer that says nothing in the
 * handshake.  TLM does not touch the guest until all channels are there.  If
 * the time bound passes before that, the migration fails with either
 * tlm-bound-action, because there is nothing to complete.
 *
 * Shutting down its socket ends a handshake, when the bound has passed or the
 * migration is cancelled.  A thread inside of connect() cannot be woken.  The
 * connection that it makes later is dropped, and until then tlm_check_start()
 * refuses the next migration.
 *
 * All functions here run under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-yank.h"
#include "io/channel-socket.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/yank_functions.h"
#include "internal.h"
#include "tlm.h"

#define TICK_MS 100

/* referenced channels that may be in their handshake; NULL: not begun */
static struct {
    QEMUTimer *timer;           /* of the main loop */
    GPtrArray *channels;
} connecting;

static void shut_down(void)
{
    for (unsigned i = 0; i < connecting.channels->len; i++) {
        qio_channel_shutdown(g_ptr_array_index(connecting.channels, i),
                             QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    }
}

static void tick(void *opaque)
{
    MigrationState *s = migrate_get_current();
    uint64_t bound_ms = s->parameters.tlm_time_bound;
    int64_t end_ms = s->start_time + (int64_t)bound_ms;

    if (s->state != MIGRATION_STATUS_SETUP &&
        s->state != MIGRATION_STATUS_CANCELLING) {
        return;                 /* it is over: nothing to wait for */
    }
    if (!bound_ms || qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < end_ms) {
        /* The bound has been changed meanwhile, or may still be */
        timer_mod(connecting.timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                    TICK_MS);
        return;
    }
    if (s->state == MIGRATION_STATUS_SETUP) {
        tlm_fail(s, "The destination could not be connected within the "
                 "time bound of %" PRIu64 " ms: check that it listens, that "
                 "nothing on the way drops packets, and TLS at both sides",
                 bound_ms);
        migrate_set_state(&s->state, MIGRATION_STATUS_SETUP,
                          MIGRATION_STATUS_FAILED);
    }
    /* A user who has cancelled need not wait for TCP either */
    migrate_set_state(&s->state, MIGRATION_STATUS_CANCELLING,
                      MIGRATION_STATUS_CANCELLED);
    shut_down();
}

static int notified(NotifierWithReturn *n, MigrationEvent *e, Error **errp)
{
    if (e->type != MIG_EVENT_PRECOPY_SETUP) {
        tlm_connect_end();
    }
    return 0;
}

/* A migration has been accepted */
void tlm_connect_begin(void)
{
    static NotifierWithReturn notifier;

    if (!notifier.notify) {
        migration_add_notifier(&notifier, notified);
    }
    tlm_connect_end();
    connecting.channels = g_ptr_array_new_with_free_func(object_unref);
    connecting.timer = timer_new_ms(QEMU_CLOCK_REALTIME, tick, NULL);
    timer_mod(connecting.timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                TICK_MS);
}

/* All channels are there, or the migration is over; idempotent */
void tlm_connect_end(void)
{
    g_clear_pointer(&connecting.timer, timer_free);
    g_clear_pointer(&connecting.channels, g_ptr_array_unref);
}

void tlm_connecting(QIOChannel *ioc)
{
    if (!connecting.timer) {
        return;
    }
    g_ptr_array_add(connecting.channels, object_ref(OBJECT(ioc)));
    if (migrate_get_current()->state != MIGRATION_STATUS_SETUP) {
        /* This channel comes after the cancel, which has not seen it */
        qio_channel_shutdown(ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    }
    if (object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_SOCKET)) {
        /*
         * The main loop itself shakes hands on the main channel.  A peer
         * that says nothing would stall the main loop, and with it the
         * guest.  migration_connect() makes the channel block again.
         */
        qio_channel_set_blocking(ioc, false, NULL);
    }
}

/* The migration is cancelled: end the handshakes */
void tlm_connect_cancel(void)
{
    if (connecting.timer) {
        shut_down();
    }
}

bool tlm_connect_dropped(MigrationState *s)
{
    QEMUFile *f;

    if (!connecting.timer || s->state == MIGRATION_STATUS_SETUP) {
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&s->qemu_file_lock) {
        f = s->to_dst_file;
        s->to_dst_file = NULL;
    }
    if (f) {
        migration_ioc_unregister_yank_from_file(f);
        qemu_fclose(f);
    }
    return true;
}

/* Does QEMU still connect on behalf of a migration that is over? */
bool tlm_connect_pending(void)
{
    YankInstanceList *list;
    bool found = false;

    if (!connecting.timer) {
        return false;
    }
    list = qmp_query_yank(&error_abort);
    for (YankInstanceList *i = list; i; i = i->next) {
        found |= i->value->type == YANK_INSTANCE_TYPE_MIGRATION;
    }
    qapi_free_YankInstanceList(list);
    return found;
}
