/*
 * A checkpoint that is to come: its ticket, from the first word to the commit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "error.h"
#include "manifest.h"
#include "parity.h"
#include "store-internal.h"
#include "vmdir.h"
#include "writer.h"

static Vm *vm_for(Store *s, const char *who, const char *name, GError **errp)
{
    g_autofree char *dir = s->config->dir ? store_vm_dir(s, name) : NULL;
    g_autofree char *owner = NULL;

    if (g_hash_table_contains(s->vms, name)) {
        return store_find_vm(s, who, name, errp);
    }
    if (g_hash_table_size(s->vms) >= s->config->max_vms) {
        ms_fail(errp, "the server has %u virtual machines already",
                s->config->max_vms);
        return NULL;
    }
    /* Its directory may be there still, and be somebody else's. */
    owner = dir ? vmdir_owner(dir) : NULL;
    if (owner && !store_may_see(s, who, owner)) {
        return store_find_vm(s, who, name, errp);
    }
    return store_vm_new(s, name, owner ? owner : who);
}

static bool prepare_vm(Store *s, Vm *vm, Level level, GError **errp)
{
    if (level == LEVEL_DURABLE && !s->config->dir) {
        return ms_fail(errp, "this server has no directory for level durable");
    }
    if (level == LEVEL_DURABLE && vm->lock < 0) {
        g_autofree char *dir = store_vm_dir(s, vm->name);

        if (!vmdir_make(dir, vm->owner, errp)) {
            return false;
        }
        vm->lock = vmdir_lock(dir, errp);
        if (vm->lock < 0) {
            return false;
        }
    }
    if (!vm->slab) {
        vm->slab = slab_new(MIN(s->config->vm_memory, s->config->memory),
                            &s->budget, errp);
    }
    return vm->slab;
}

/* The name is taken by @c. */
static bool taken(const Checkpoint *c, GError **errp)
{
    if (c->parts == 1) {
        return ms_fail(errp, "there is a checkpoint '%s' of '%s' already",
                       c->name, c->vm);
    }
    return ms_fail(errp, "there is part %u of %u of a checkpoint '%s' of '%s' "
                   "already: if part 0 of set %s is at no server, remove it "
                   "(tlm memserver remove --vm %s %s)", c->part, c->parts,
                   c->name, c->vm, c->set, c->vm, c->name);
}

static bool begin(StoreTicket *t, Vm *vm, const char *parent, GError **errp)
{
    Checkpoint *p = parent ? vm_find(vm, parent, NULL) : NULL;
    Checkpoint *same = vm_find(vm, t->name, NULL);

    if (vm->receiving) {
        return ms_fail(errp, "another checkpoint of '%s' is being received",
                       vm->name);
    }
    if (same) {
        return taken(same, errp);
    }
    if (parent && (!p || !p->generation || p->parity)) {
        return ms_fail(errp, "checkpoint '%s' of '%s' is not in memory: there "
                       "can be no increment to it", parent, vm->name);
    }
    if (!prepare_vm(t->store, vm, t->level, errp)) {
        return false;
    }
    t->parent = p ? checkpoint_ref(p) : NULL;
    t->slab = slab_use(vm->slab);
    vm->receiving = true;
    return true;
}

StoreTicket *store_begin(Store *s, const char *who, const char *vm,
                         const char *name, const char *parent, Level level,
                         GError **errp)
{
    StoreTicket *t = g_new0(StoreTicket, 1);
    Vm *v;

    t->store = s;
    t->vm = g_strdup(vm);
    t->name = g_strdup(name);
    t->owner = g_strdup(who);
    t->level = level;
    g_mutex_lock(&s->mutex);
    v = vm_for(s, who, vm, errp);
    if (!v || !begin(t, v, parent, errp)) {
        if (v) {
            store_forget_if_empty(s, v);
        }
        g_clear_pointer(&t->vm, g_free);
    }
    g_mutex_unlock(&s->mutex);
    if (!t->vm) {
        store_end(t);
        return NULL;
    }
    return t;
}

/* A checkpoint that is also on the disk is found there, but for the newest. */
static void thin_out(Vm *vm)
{
    for (unsigned i = 0; i + 1 < vm->list->len; i++) {
        Checkpoint *old = g_ptr_array_index(vm->list, i), *c;

        if (!old->file.there || !old->generation) {
            continue;
        }
        c = checkpoint_new(old->vm, old->name);
        g_free(c->created);
        c->created = g_strdup(old->created);
        c->parent = g_strdup(old->parent);
        c->machine = g_strdup(old->machine);
        c->source = manifest_machine_text(old);
        c->ram = old->ram;
        c->set = g_strdup(old->set);
        c->part = old->part;
        c->parts = old->parts;
        c->head_id = g_strdup(old->head_id);
        c->redundancy = old->redundancy;
        c->claim = claim_ref(old->claim);
        c->parity = parity_ref(old->parity);
        c->ready = old->ready;
        c->file = old->file;
        g_ptr_array_index(vm->list, i) = c;
        checkpoint_unref(old);
    }
}

/*
 * The newest one is the last one to be removed, also if the clock was set
 * back.
 */
static void date(StoreTicket *t, Checkpoint *c)
{
    Vm *vm;

    g_mutex_lock(&t->store->mutex);
    vm = g_hash_table_lookup(t->store->vms, t->vm);
    for (unsigned i = 0; i < vm->list->len; i++) {
        const Checkpoint *other = g_ptr_array_index(vm->list, i);

        checkpoint_date_after(c, other->created);
    }
    g_mutex_unlock(&t->store->mutex);
}

bool store_write(StoreTicket *t, Checkpoint *c, GError **errp)
{
    Store *s = t->store;
    g_autofree char *dir = NULL;
    uint64_t used;

    date(t, c);
    if (t->level != LEVEL_DURABLE) {
        return true;
    }
    dir = store_vm_dir(s, t->vm);
    g_mutex_lock(&s->mutex);
    used = vm_disk(g_hash_table_lookup(s->vms, t->vm));
    g_mutex_unlock(&s->mutex);
    t->written = writer_write(dir, c, s->config->vm_disk -
                              MIN(used, s->config->vm_disk),
                              s->config->threads, errp);
    return t->written;
}

bool store_sign(StoreTicket *t, Checkpoint *c, GError **errp)
{
    g_autofree char *dir = t->written ? store_vm_dir(t->store, t->vm) : NULL;

    return !t->written || writer_sign(dir, c, t->written, errp);
}

void store_discard(StoreTicket *t, Checkpoint *c)
{
    g_autofree char *dir = t->written ? store_vm_dir(t->store, t->vm) : NULL;
    g_autoptr(GError) error = NULL;

    if (t->written && !vmdir_remove(dir, c->name, &error)) {
        g_warning("%s", error->message);
    }
}

/* With the mutex. */
static Vm *append(StoreTicket *t, Checkpoint *c)
{
    Vm *vm = g_hash_table_lookup(t->store->vms, t->vm);

    if (c->claim && claim_is_over(c->claim)) {
        store_discard(t, c);
    } else {
        g_ptr_array_add(vm->list, checkpoint_ref(c));
    }
    return vm;
}

void store_commit(StoreTicket *t, Checkpoint *c)
{
    Store *s = t->store;
    Vm *vm;

    g_mutex_lock(&s->mutex);
    vm = append(t, c);
    thin_out(vm);
    while (!t->keep_all && s->config->keep &&
           vm->list->len > s->config->keep) {
        g_autoptr(GError) error = NULL;

        if (!store_remove_at(s, vm, 0, &error)) {
            g_warning("%s", error->message);
            break;
        }
    }
    g_mutex_unlock(&s->mutex);
}

void store_keep(StoreTicket *t, Checkpoint *c)
{
    g_mutex_lock(&t->store->mutex);
    append(t, c);
    g_mutex_unlock(&t->store->mutex);
}

void store_end(StoreTicket *t)
{
    Vm *vm;

    if (!t) {
        return;
    }
    if (t->vm) {
        g_mutex_lock(&t->store->mutex);
        vm = g_hash_table_lookup(t->store->vms, t->vm);
        vm->receiving = false;
        store_forget_if_empty(t->store, vm);
        g_mutex_unlock(&t->store->mutex);
    }
    if (t->written) {
        g_array_unref(t->written);
    }
    checkpoint_unref(t->parent);
    slab_leave(t->slab);
    g_free(t->vm);
    g_free(t->name);
    g_free(t->owner);
    g_free(t);
}
