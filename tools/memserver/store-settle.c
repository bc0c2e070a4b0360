/*
 * Checkpoints that are tentative: they are settled, or go with their client
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "error.h"
#include "store-internal.h"
#include "vmdir.h"

static bool settle(Store *s, Checkpoint *c, const Claim *claim, bool ready,
                   GError **errp)
{
    g_autofree char *dir = c->file.there ? store_vm_dir(s, c->vm) : NULL;

    if (!c->claim) {
        return true;
    }
    if (!claim || c->claim != claim || claim_is_over(claim)) {
        return ms_fail(errp, "'%s' is tentative, and is settled over the "
                       "connection alone that it was announced by", c->name);
    }
    if (ready) {
        c->ready = true;
    } else if (c->ready) {
        if (dir && !vmdir_settle(dir, c->name, errp)) {
            return false;
        }
        g_clear_pointer(&c->claim, claim_unref);
    } else {
        return ms_fail(errp, "'%s' is not settled before it was ready",
                       c->name);
    }
    return true;
}

bool store_settle(Store *s, const char *who, const char *vm, const char *name,
                  const char *set, const Claim *claim, bool ready,
                  GError **errp)
{
    Checkpoint *c;
    bool ok = false;
    Vm *v;

    g_mutex_lock(&s->mutex);
    v = store_find_vm(s, who, vm, errp);
    if (v) {
        c = vm_find(v, name, NULL);
        ok = c && !g_strcmp0(c->set, set)
            ? settle(s, c, claim, ready, errp)
            : ms_fail(errp, "there is no checkpoint '%s' of '%s' in set %s",
                      name, vm, set);
    }
    g_mutex_unlock(&s->mutex);
    return ok;
}

static void give_up_of(Store *s, Vm *vm, const Claim *claim)
{
    for (unsigned i = vm->list->len; i > 0; i--) {
        Checkpoint *c = g_ptr_array_index(vm->list, i - 1);
        g_autoptr(GError) error = NULL;

        if (c->claim != claim || c->ready) {
            continue;
        }
        g_message("%s of %s is removed: its client has gone before it had "
                  "the level that was asked for", c->name, c->vm);
        if (!store_remove_at(s, vm, i - 1, &error)) {
            g_warning("%s", error->message);
        }
    }
}

void store_give_up(Store *s, const Claim *claim)
{
    g_autoptr(GPtrArray) vms = g_ptr_array_new();
    GHashTableIter i;
    void *vm;

    g_mutex_lock(&s->mutex);
    g_hash_table_iter_init(&i, s->vms);
    while (g_hash_table_iter_next(&i, NULL, &vm)) {
        g_ptr_array_add(vms, vm);
    }
    for (unsigned n = 0; n < vms->len; n++) {
        give_up_of(s, g_ptr_array_index(vms, n), claim);
        store_forget_if_empty(s, g_ptr_array_index(vms, n));
    }
    g_mutex_unlock(&s->mutex);
}

const char *store_tentative(Store *s, const Checkpoint *c)
{
    const char *what;

    g_mutex_lock(&s->mutex);
    what = !c->claim ? NULL : claim_is_over(c->claim) ? "abandoned"
                                                      : "pending";
    g_mutex_unlock(&s->mutex);
    return what;
}
