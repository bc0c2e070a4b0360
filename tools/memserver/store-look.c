/*
 * What clients do with checkpoints that are there: look at them, remove them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "error.h"
#include "store-internal.h"

static unsigned parts_of(const Vm *vm)
{
    unsigned n = 0;

    for (unsigned i = 0; i < vm->list->len; i++) {
        const Checkpoint *c = g_ptr_array_index(vm->list, i);

        n += c->parts > 1;
    }
    return n;
}

static void append_all(GPtrArray *to, const Vm *vm)
{
    for (unsigned i = 0; i < vm->list->len; i++) {
        g_ptr_array_add(to, checkpoint_ref(g_ptr_array_index(vm->list, i)));
    }
}

static int by_vm(const void *a, const void *b)
{
    const Checkpoint *x = *(Checkpoint *const *)a;
    const Checkpoint *y = *(Checkpoint *const *)b;
    int order = strcmp(x->vm, y->vm);

    return order ? order : strcmp(x->created, y->created);
}

GPtrArray *store_list(Store *s, const char *who, const char *vm, GError **errp)
{
    g_autoptr(GPtrArray) list =
        g_ptr_array_new_with_free_func((GDestroyNotify)checkpoint_unref);
    GHashTableIter i;
    void *value;
    Vm *one;

    g_mutex_lock(&s->mutex);
    if (vm) {
        one = store_find_vm(s, who, vm, errp);
        if (one) {
            append_all(list, one);
        }
        g_mutex_unlock(&s->mutex);
        return one ? g_steal_pointer(&list) : NULL;
    }
    g_hash_table_iter_init(&i, s->vms);
    while (g_hash_table_iter_next(&i, NULL, &value)) {
        one = value;
        if (store_may_see(s, who, one->owner)) {
            append_all(list, one);
        }
    }
    g_mutex_unlock(&s->mutex);
    g_ptr_array_sort(list, by_vm);
    return g_steal_pointer(&list);
}

Checkpoint *store_get(Store *s, const char *who, const char *vm,
                      const char *name, GError **errp)
{
    Checkpoint *c = NULL;
    Vm *v;

    g_mutex_lock(&s->mutex);
    v = store_find_vm(s, who, vm, errp);
    if (v) {
        c = vm_find(v, name, NULL);
        if (c) {
            checkpoint_ref(c);
        } else {
            ms_fail(errp, "there is no checkpoint '%s' of '%s'",
                    name ? name : "(newest)", vm);
        }
    }
    g_mutex_unlock(&s->mutex);
    return c;
}

static bool has_head(const Vm *vm, const char *set)
{
    for (unsigned i = 0; i < vm->list->len; i++) {
        const Checkpoint *c = g_ptr_array_index(vm->list, i);

        if (c->set && !c->part && !strcmp(c->set, set)) {
            return true;
        }
    }
    return false;
}

bool store_has_head(Store *s, const char *set)
{
    GHashTableIter i;
    void *vm;
    bool found = false;

    g_mutex_lock(&s->mutex);
    g_hash_table_iter_init(&i, s->vms);
    while (!found && g_hash_table_iter_next(&i, NULL, &vm)) {
        found = has_head(vm, set);
    }
    g_mutex_unlock(&s->mutex);
    return found;
}

GPtrArray *store_prune(Store *s, const char *who, const char *vm,
                       unsigned keep, GError **errp)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    bool ok;
    Vm *v;

    g_mutex_lock(&s->mutex);
    v = store_find_vm(s, who, vm, errp);
    ok = v;
    while (ok && v->list->len > keep) {
        Checkpoint *c = g_ptr_array_index(v->list, 0);

        g_ptr_array_add(names, g_strdup(c->name));
        ok = store_remove_at(s, v, 0, errp);
    }
    if (v) {
        store_forget_if_empty(s, v);
    }
    g_mutex_unlock(&s->mutex);
    return ok ? g_steal_pointer(&names) : NULL;
}

static bool remove_named(Store *s, Vm *vm, const char *name, const char *set,
                         GError **errp)
{
    unsigned at;
    const Checkpoint *c = vm_find(vm, name, &at);

    if (!c || (set && g_strcmp0(c->set, set))) {
        return ms_fail(errp, "there is no checkpoint '%s' of '%s'%s%s", name,
                       vm->name, set ? " in set " : "", set ? set : "");
    }
    return store_remove_at(s, vm, at, errp);
}

bool store_remove(Store *s, const char *who, const char *vm, const char *name,
                  const char *set, GError **errp)
{
    bool ok = false;
    Vm *v;

    g_mutex_lock(&s->mutex);
    v = store_find_vm(s, who, vm, errp);
    if (v) {
        ok = remove_named(s, v, name, set, errp);
        store_forget_if_empty(s, v);
    }
    g_mutex_unlock(&s->mutex);
    return ok;
}

void store_figures(Store *s, StoreFigures *f)
{
    GHashTableIter i;
    void *value;

    memset(f, 0, sizeof(*f));
    g_mutex_lock(&s->mutex);
    g_hash_table_iter_init(&i, s->vms);
    while (g_hash_table_iter_next(&i, NULL, &value)) {
        Vm *vm = value;

        f->vms++;
        f->checkpoints += vm->list->len;
        f->parts += parts_of(vm);
        f->disk += vm_disk(vm);
    }
    g_mutex_unlock(&s->mutex);
    g_mutex_lock(&s->budget.lock);
    f->memory = s->budget.used;
    f->memory_limit = s->budget.limit;
    g_mutex_unlock(&s->budget.lock);
}
