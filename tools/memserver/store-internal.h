/*
 * What the files of the store share
 *
 * store.c has the virtual machines, store-receive.c what is to come to one,
 * store-look.c what clients do with what is there.
 *
 * A virtual machine is known as long as it has a checkpoint or receives one.
 * The mutex is not held while a checkpoint is written: the ticket keeps others
 * out of its virtual machine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_STORE_INTERNAL_H
#define MEMSERVER_STORE_INTERNAL_H

#include "store.h"

typedef struct Vm {
    char *name, *owner;
    Slab *slab;                         /* NULL: nothing in memory yet */
    GPtrArray *list;                    /* Checkpoint, the oldest first */
    bool receiving;
    int lock;                           /* of its directory, or -1 */
} Vm;

struct Store {
    const StoreConfig *config;
    GMutex mutex;                       /* all below */
    GHashTable *vms;                    /* name: Vm */
    Budget budget;
    int lock;
    char *id;
};

char *store_vm_dir(const Store *s, const char *vm);

/* All below is called with the mutex. */

Vm *store_vm_new(Store *s, const char *name, const char *owner);
bool store_may_see(const Store *s, const char *who, const char *owner);

/* What others have is not told from what is not there. */
Vm *store_find_vm(const Store *s, const char *who, const char *name,
                  GError **errp);

void store_forget_if_empty(Store *s, Vm *vm);

/* Removes the checkpoint at this place of the list, and its file. */
bool store_remove_at(Store *s, Vm *vm, unsigned i, GError **errp);

/* @name: NULL: the newest settled one.  *at: its place in the list, unless @at is NULL. */
Checkpoint *vm_find(const Vm *vm, const char *name, unsigned *at);

/* Bytes that its files take. */
uint64_t vm_disk(const Vm *vm);

#endif
