/*
 * The checkpoints of all virtual machines
 *
 * Each virtual machine belongs to whoever announced its first checkpoint;
 * others do not see it, but administrators do.  All functions may be called
 * by any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_STORE_H
#define MEMSERVER_STORE_H

#include "checkpoint.h"

typedef struct StoreConfig {
    const char *dir;                    /* NULL: nothing goes to the disk */
    uint64_t memory;                    /* bytes, of all virtual machines */
    uint64_t vm_memory, vm_disk;        /* bytes, of each */
    unsigned keep;                      /* checkpoints of each; 0: all */
    unsigned max_vms;
    unsigned threads;                   /* that write one */
    char **admins;                      /* see conn_peer() */
} StoreConfig;

typedef struct Store Store;

/* @config must live as long.  Finds what is in the directory. */
Store *store_new(const StoreConfig *config, GError **errp);
void store_free(Store *s);

/* A UUID; it lasts as long as what is in the store. */
const char *store_id(const Store *s);

/* A checkpoint that is being received: there is one for a VM at a time. */
typedef struct StoreTicket {
    Store *store;
    char *vm, *name, *owner;
    Slab *slab;
    Checkpoint *parent;                 /* or NULL */
    Level level;
    bool keep_all;                      /* the client removes old ones */
    GArray *written;                    /* ManifestSum: of the file, or NULL */
} StoreTicket;

StoreTicket *store_begin(Store *s, const char *who, const char *vm,
                         const char *name, const char *parent, Level level,
                         GError **errp);

/*
 * Three steps make a checkpoint the newest; until the third nothing has
 * changed for others.  The first brings its pages to the level of the ticket;
 * the second its manifest: from then on it is found after a crash.  If its
 * claim is over by the third, nothing of it stays.
 */
bool store_write(StoreTicket *t, Checkpoint *c, GError **errp);
bool store_sign(StoreTicket *t, Checkpoint *c, GError **errp);
void store_commit(StoreTicket *t, Checkpoint *c);

/*
 * Instead of the third: undoes the others; or keeps it beside all that there
 * is, as nobody knows whether its set is whole.
 */
void store_discard(StoreTicket *t, Checkpoint *c);
void store_keep(StoreTicket *t, Checkpoint *c);

/* After store_commit(), or instead. */
void store_end(StoreTicket *t);

/* Checkpoint, the oldest first.  @vm: NULL: all that @who may see. */
GPtrArray *store_list(Store *s, const char *who, const char *vm,
                      GError **errp);

/* @name: NULL: the newest.  A reference for the caller. */
Checkpoint *store_get(Store *s, const char *who, const char *vm,
                      const char *name, GError **errp);

/*
 * Of a checkpoint of @set that has @claim: it is @ready, or, later, settled.
 * One that is settled stays so.  See claim.h.
 */
bool store_settle(Store *s, const char *who, const char *vm, const char *name,
                  const char *set, const Claim *claim, bool ready,
                  GError **errp);

/* "pending", "abandoned" (its claim is over), or NULL: settled */
const char *store_tentative(Store *s, const Checkpoint *c);

/* @claim is over: removes what has it, and is not ready. */
void store_give_up(Store *s, const Claim *claim);

/* Whether it has part 0 of @set, of whatever virtual machine. */
bool store_has_head(Store *s, const char *set);

/*
 * Removes all but @keep, or the one called @name; unless NULL, it must be of
 * @set.  Names of the removed.
 */
GPtrArray *store_prune(Store *s, const char *who, const char *vm,
                       unsigned keep, GError **errp);
bool store_remove(Store *s, const char *who, const char *vm, const char *name,
                  const char *set, GError **errp);

/* The file of a checkpoint that has one. */
char *store_path(const Store *s, const Checkpoint *c, const char *suffix);

typedef struct StoreFigures {
    unsigned vms, checkpoints;
    unsigned parts;                     /* of the checkpoints */
    uint64_t memory, memory_limit, disk; /* bytes */
} StoreFigures;

void store_figures(Store *s, StoreFigures *f);

#endif
