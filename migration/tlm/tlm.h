/*
 * TLM: time-bound, thread-based live migration
 *
 * QEMU's other files include no other header of migration/tlm/.  TLM is a
 * scheduler: two threads, mtx and dtx, decide which page goes when.  The
 * pages travel over QEMU's own multifd channels in the stock format, to a
 * destination that knows nothing of TLM.
 *
 * The scheme is from K. Chanchio et al., "Time-Bounded, Thread-Based Live
 * Migration of Virtual Machines" (Thammasat University).  The design is in
 * docs/devel/migration/tlm/index.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_TLM_H
#define QEMU_MIGRATION_TLM_H

#include "qapi/qapi-types-migration.h"
#include "io/channel.h"
#include "io/task.h"

/* The user has asked for TLM */
bool migrate_tlm(void);

/*
 * A TLM migration is running: from the end of ram_save_setup() to
 * ram_save_cleanup(), but for post-copy, which is QEMU's own.  False for
 * savevm, COLO and background snapshots, even
 * with the capability on.
 */
bool tlm_running(void);

/*
 * Before a migration to @addr starts; BQL held.  False with @errp set: the
 * migration is refused.
 */
bool tlm_check_start(const MigrationAddress *addr, Error **errp);
/* Capabilities that do not go with TLM */
bool tlm_check_caps(const bool *caps, Error **errp);

/*
 * Called by ram.c.  setup: BQL held, the bitmaps are initialised and the
 * dirty log is on.  iterate: migration thread, no locks; does one epoch, or
 * all of the stop stage; returns 0 or a negative errno.
 * cleanup: BQL held, before the bitmaps are freed.
 */
void tlm_ram_setup(void);
int tlm_ram_iterate(QEMUFile *f);
/* Bytes owed, for ram.remaining: never more than there are; no locks */
uint64_t tlm_bytes_remaining(void);
/*
 * Called by ram.c when post-copy begins; BQL held, VM stopped, the dirty log
 * has been read.  What is owed is put into QEMU's own bitmaps, discarded
 * (virtio-mem) pages too.  False: this is no migration by TLM.
 */
bool tlm_ram_hand_over(void);
/* All of RAM is queued; BQL held */
void tlm_ram_completed(void);
void tlm_ram_cleanup(void);
/* A balloon device says these pages are free; bitmap_mutex held */
void tlm_free_page_hint(RAMBlock *rb, unsigned long start,
                        unsigned long npages);

/* Called by migration.c */
bool tlm_switchover_due(void);
/*
 * Is post-copy to begin?  Called by the migration thread between two sections,
 * no locks; waits for a moment, with the guest running.
 */
bool tlm_postcopy_due(void);
/* "migrate-start-postcopy"; BQL held, before QEMU takes note of it */
void tlm_start_postcopy(void);
/* The destination has answered a ping; return path thread */
void tlm_pong(uint32_t value);
/*
 * The guest has just been stopped, and its images are still active: sends
 * the rest of RAM.  BQL held; dropped meanwhile.  0 or a negative errno.
 */
int tlm_send_rest(QEMUFile *f);
/*
 * The wait for the manager is over, and the switchover goes on.  BQL held,
 * and kept until the device state is saved.  False: the guest runs.
 */
bool tlm_switchover_allowed(void);
/*
 * A channel to the destination has been opened; its handshake may be still
 * to come.  Called by channel.c and multifd.c; BQL held.
 */
void tlm_connecting(QIOChannel *ioc);
/*
 * The main channel is connected and its handshake done, or this has failed.
 * True: too late, the migration is over, and the channel is closed.  BQL held.
 */
bool tlm_connect_dropped(MigrationState *s);
/* migrate_cancel: wakes up all threads that wait for a channel; BQL held */
void tlm_cancel(void);
/* The device state is on the wire; BQL held */
void tlm_device_state_saved(void);
/* The end, good or bad; no locks held, the guest has not been started yet */
void tlm_finished(void);
void tlm_fill_info(MigrationInfo *info);
void tlm_hmp_info(Monitor *mon, const MigrationTlmInfo *info);

/*
 * The migration that runs is a checkpoint: the guest goes on here afterwards.
 * BQL held, or the migration thread.
 */
bool tlm_is_checkpoint(void);
/* It is to be paused, resumed, and to be written; 0 or a negative errno */
int tlm_checkpoint(MigrationState *s);

/*
 * Of the pages that have changed since an earlier checkpoint (checkpoint/
 * chain.c).  Called by ram.c, BQL held, when anybody is about to save RAM,
 * with the RCU read lock.  False with @errp set: RAM cannot be saved.
 */
bool tlm_ram_begin(Error **errp);
/* Which pages are to be saved: all, or those that have changed */
void tlm_ram_init_bitmap(RAMBlock *rb, unsigned long pages);
/* The dirty log has just been read into @rb's bitmap; bitmap_mutex held */
void tlm_ram_synced(RAMBlock *rb);
/* RAM is about to be loaded: from now on it is another one */
void tlm_ram_loading(void);
/*
 * Pages that are not sent are not zero, but as they were: all that have
 * changed must be.  Any thread.
 */
bool tlm_is_incremental(void);
/* Somebody is about to take bits out of the dirty log: @why; BQL held */
void tlm_chain_end(const char *why);

/* Called by multifd.c: which group channel @id of @channels belongs to */
unsigned tlm_channel_group(unsigned id, unsigned channels);

/*
 * Multifd channels with addresses of their own (data-address.c), with and
 * without capability "tlm".
 *
 * A migration to @main_addr is about to start, or with @resume to go on:
 * takes the channels of type "data" from @channels, which may be NULL.  BQL
 * held.  False with @errp set: the migration is refused.
 */
bool tlm_data_begin(const MigrationChannelList *channels,
                    const MigrationAddress *main_addr, bool resume,
                    Error **errp);
/*
 * Called by multifd.c; the migration's thread.  Connects channel @id, and
 * then calls @done in the main loop.  False: it has no address of its own.
 */
bool tlm_data_connect(unsigned id, QIOTaskFunc done, void *opaque);
/*
 * Called by multifd.c; the main loop.  By which name TLS verifies the peer of
 * channel @id; NULL: by none.  Valid until the migration has ended.
 */
const char *tlm_data_hostname(unsigned id, const char *main_hostname);

/* Called by options.c and migration-hmp-cmds.c */
void tlm_params_init(MigrationTlmParameters *params);
/* What the members point to; not @params itself */
void tlm_params_free(MigrationTlmParameters *params);
bool tlm_params_check(const MigrationParameters *params, Error **errp);
/* Shallow: @dest borrows what @src owns */
void tlm_params_test_apply(const MigrationTlmParameters *src,
                           MigrationTlmParameters *dest);
void tlm_params_apply(const MigrationTlmParameters *src,
                      MigrationTlmParameters *dest);
/* A deep copy, for query-migrate-parameters */
void tlm_params_get(MigrationTlmParameters *dest);
/* False: @param is not one of TLM's */
bool tlm_hmp_set_parameter(const char *param, const char *value,
                           Error **errp);
void tlm_hmp_show_parameters(Monitor *mon,
                             const MigrationTlmParameters *params);

#endif
