/*
 * The virtual machines of which there are checkpoints
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <unistd.h>

#include "error.h"
#include "store-internal.h"
#include "vmdir.h"

static void vm_free(void *opaque)
{
    Vm *vm = opaque;

    g_ptr_array_unref(vm->list);
    slab_leave(vm->slab);
    if (vm->lock >= 0) {
        close(vm->lock);
    }
    g_free(vm->name);
    g_free(vm->owner);
    g_free(vm);
}

Vm *store_vm_new(Store *s, const char *name, const char *owner)
{
    Vm *vm = g_new0(Vm, 1);

    vm->name = g_strdup(name);
    vm->owner = g_strdup(owner);
    vm->list = g_ptr_array_new_with_free_func((GDestroyNotify)checkpoint_unref);
    vm->lock = -1;
    g_hash_table_insert(s->vms, vm->name, vm);
    return vm;
}

char *store_vm_dir(const Store *s, const char *vm)
{
    return g_build_filename(s->config->dir, vm, NULL);
}

char *store_path(const Store *s, const Checkpoint *c, const char *suffix)
{
    return g_strdup_printf("%s/%s/%s.%s", s->config->dir, c->vm, c->name,
                           suffix);
}

/* What is on the disk */

static bool find_all(Store *s, GError **errp)
{
    g_autoptr(GDir) dir = g_dir_open(s->config->dir, 0, errp);
    const char *name;

    if (!dir) {
        return false;
    }
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = store_vm_dir(s, name), *owner = NULL;
        Vm *vm;

        if (!name_is_valid(name, strlen(name)) ||
            !(owner = vmdir_owner(path))) {
            continue;
        }
        vm = store_vm_new(s, name, owner);
        vm->lock = vmdir_lock(path, errp);
        if (vm->lock < 0) {
            return false;
        }
        g_ptr_array_unref(vm->list);
        vm->list = vmdir_scan(path, name);
        if (!vm->list->len) {
            g_hash_table_remove(s->vms, name);
        }
    }
    return true;
}

Store *store_new(const StoreConfig *config, GError **errp)
{
    Store *s = g_new0(Store, 1);

    s->config = config;
    g_mutex_init(&s->mutex);
    g_mutex_init(&s->budget.lock);
    s->budget.limit = config->memory;
    s->vms = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, vm_free);
    s->lock = -1;
    if (!config->dir) {
        s->id = g_uuid_string_random();
        return s;
    }
    s->lock = vmdir_lock(config->dir, errp);
    s->id = s->lock < 0 ? NULL : vmdir_id(config->dir, errp);
    if (!s->id || !find_all(s, errp)) {
        store_free(s);
        return NULL;
    }
    return s;
}

void store_free(Store *s)
{
    g_hash_table_unref(s->vms);
    g_mutex_clear(&s->mutex);
    g_mutex_clear(&s->budget.lock);
    if (s->lock >= 0) {
        close(s->lock);
    }
    g_free(s->id);
    g_free(s);
}

const char *store_id(const Store *s)
{
    return s->id;
}

/* Finding; all with the mutex */

bool store_may_see(const Store *s, const char *who, const char *owner)
{
    return !strcmp(who, owner) ||
        (s->config->admins &&
         g_strv_contains((const char *const *)s->config->admins, who));
}

Vm *store_find_vm(const Store *s, const char *who, const char *name,
                  GError **errp)
{
    Vm *vm = g_hash_table_lookup(s->vms, name);

    if (vm && store_may_see(s, who, vm->owner)) {
        return vm;
    }
    ms_fail(errp, "no virtual machine '%s' of %s is known here", name, who);
    return NULL;
}

Checkpoint *vm_find(const Vm *vm, const char *name, unsigned *at)
{
    for (unsigned i = vm->list->len; i > 0; i--) {
        Checkpoint *c = g_ptr_array_index(vm->list, i - 1);

        if (name ? !strcmp(c->name, name) : !c->claim) {
            if (at) {
                *at = i - 1;
            }
            return c;
        }
    }
    return NULL;
}

void store_forget_if_empty(Store *s, Vm *vm)
{
    if (!vm->receiving && !vm->list->len) {
        g_hash_table_remove(s->vms, vm->name);
    }
}

uint64_t vm_disk(const Vm *vm)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < vm->list->len; i++) {
        const Checkpoint *c = g_ptr_array_index(vm->list, i);

        sum += c->file.there ? c->file.allocated : 0;
    }
    return sum;
}

bool store_remove_at(Store *s, Vm *vm, unsigned i, GError **errp)
{
    Checkpoint *c = g_ptr_array_index(vm->list, i);

    if (c->file.there) {
        g_autofree char *dir = store_vm_dir(s, vm->name);

        if (!vmdir_remove(dir, c->name, errp)) {
            return false;
        }
    }
    g_ptr_array_remove_index(vm->list, i);
    return true;
}
