/*
 * The checkpoints of all virtual machines
 *
 * A virtual machine is known as long as it has a checkpoint or receives one.
 * The lock is not held while a checkpoint is written: the ticket keeps others
 * out of its virtual machine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "manifest.h"
#include "store.h"
#include "vmdir.h"
#include "writer.h"

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

static Vm *vm_new(Store *s, const char *name, const char *owner)
{
    Vm *vm = g_new0(Vm, 1);

    vm->name = g_strdup(name);
    vm->owner = g_strdup(owner);
    vm->list = g_ptr_array_new_with_free_func((GDestroyNotify)checkpoint_unref);
    vm->lock = -1;
    g_hash_table_insert(s->vms, vm->name, vm);
    return vm;
}

static char *vm_dir(const Store *s, const char *vm)
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
        g_autofree char *path = vm_dir(s, name), *owner = NULL;
        Vm *vm;

        if (!name_is_valid(name, strlen(name)) ||
            !(owner = vmdir_owner(path))) {
            continue;
        }
        vm = vm_new(s, name, owner);
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

static bool may_see(const Store *s, const char *who, const char *owner)
{
    return !strcmp(who, owner) ||
        (s->config->admins &&
         g_strv_contains((const char *const *)s->config->admins, who));
}

/* What others have is not told from what is not there. */
static Vm *find_vm(const Store *s, const char *who, const char *name,
                   GError **errp)
{
    Vm *vm = g_hash_table_lookup(s->vms, name);

    if (vm && may_see(s, who, vm->owner)) {
        return vm;
    }
    ms_fail(errp, "no virtual machine '%s' of %s is known here", name, who);
    return NULL;
}

static Checkpoint *find(const Vm *vm, const char *name, unsigned *at)
{
    for (unsigned i = vm->list->len; i > 0; i--) {
        Checkpoint *c = g_ptr_array_index(vm->list, i - 1);

        if (!name || !strcmp(c->name, name)) {
            if (at) {
                *at = i - 1;
            }
            return c;
        }
    }
    return NULL;
}

static void forget_if_empty(Store *s, Vm *vm)
{
    if (!vm->receiving && !vm->list->len) {
        g_hash_table_remove(s->vms, vm->name);
    }
}

static unsigned parts_of(const Vm *vm)
{
    unsigned n = 0;

    for (unsigned i = 0; i < vm->list->len; i++) {
        const Checkpoint *c = g_ptr_array_index(vm->list, i);

        n += c->parts > 1;
    }
    return n;
}

static uint64_t disk_of(const Vm *vm)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < vm->list->len; i++) {
        const Checkpoint *c = g_ptr_array_index(vm->list, i);

        sum += c->file.there ? c->file.allocated : 0;
    }
    return sum;
}

/* Receiving */

static Vm *vm_for(Store *s, const char *who, const char *name, GError **errp)
{
    g_autofree char *dir = s->config->dir ? vm_dir(s, name) : NULL;
    g_autofree char *owner = NULL;

    if (g_hash_table_contains(s->vms, name)) {
        return find_vm(s, who, name, errp);
    }
    if (g_hash_table_size(s->vms) >= s->config->max_vms) {
        ms_fail(errp, "the server has %u virtual machines already",
                s->config->max_vms);
        return NULL;
    }
    /* Its directory may be there still, and be somebody else's. */
    owner = dir ? vmdir_owner(dir) : NULL;
    if (owner && !may_see(s, who, owner)) {
        return find_vm(s, who, name, errp);
    }
    return vm_new(s, name, owner ? owner : who);
}

static bool prepare_vm(Store *s, Vm *vm, Level level, GError **errp)
{
    if (level == LEVEL_DURABLE && !s->config->dir) {
        return ms_fail(errp, "this server has no directory for level durable");
    }
    if (level == LEVEL_DURABLE && vm->lock < 0) {
        g_autofree char *dir = vm_dir(s, vm->name);

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
    Checkpoint *p = parent ? find(vm, parent, NULL) : NULL;
    Checkpoint *same = find(vm, t->name, NULL);

    if (vm->receiving) {
        return ms_fail(errp, "another checkpoint of '%s' is being received",
                       vm->name);
    }
    if (same) {
        return taken(same, errp);
    }
    if (parent && (!p || !p->generation)) {
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
            forget_if_empty(s, v);
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
        c->file = old->file;
        g_ptr_array_index(vm->list, i) = c;
        checkpoint_unref(old);
    }
}

static bool remove_at(Store *s, Vm *vm, unsigned i, GError **errp)
{
    Checkpoint *c = g_ptr_array_index(vm->list, i);

    if (c->file.there) {
        g_autofree char *dir = vm_dir(s, vm->name);

        if (!vmdir_remove(dir, c->name, errp)) {
            return false;
        }
    }
    g_ptr_array_remove_index(vm->list, i);
    return true;
}

bool store_write(StoreTicket *t, Checkpoint *c, GError **errp)
{
    Store *s = t->store;
    g_autofree char *dir = NULL;
    uint64_t used;

    if (t->level != LEVEL_DURABLE) {
        return true;
    }
    dir = vm_dir(s, t->vm);
    g_mutex_lock(&s->mutex);
    used = disk_of(g_hash_table_lookup(s->vms, t->vm));
    g_mutex_unlock(&s->mutex);
    t->written = writer_write(dir, c, s->config->vm_disk -
                              MIN(used, s->config->vm_disk),
                              s->config->threads, errp);
    return t->written;
}

bool store_sign(StoreTicket *t, Checkpoint *c, GError **errp)
{
    g_autofree char *dir = t->written ? vm_dir(t->store, t->vm) : NULL;

    return !t->written || writer_sign(dir, c, t->written, errp);
}

void store_discard(StoreTicket *t, Checkpoint *c)
{
    g_autofree char *dir = t->written ? vm_dir(t->store, t->vm) : NULL;
    g_autoptr(GError) error = NULL;

    if (t->written && !vmdir_remove(dir, c->name, &error)) {
        g_warning("%s", error->message);
    }
}

/* With the mutex. */
static Vm *append(StoreTicket *t, Checkpoint *c)
{
    Vm *vm = g_hash_table_lookup(t->store->vms, t->vm);

    g_ptr_array_add(vm->list, checkpoint_ref(c));
    return vm;
}

void store_commit(StoreTicket *t, Checkpoint *c)
{
    Store *s = t->store;
    Vm *vm;

    g_mutex_lock(&s->mutex);
    vm = append(t, c);
    thin_out(vm);
    while (s->config->keep && vm->list->len > s->config->keep) {
        g_autoptr(GError) error = NULL;

        if (!remove_at(s, vm, 0, &error)) {
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
        forget_if_empty(t->store, vm);
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

/* Looking, removing */

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
        one = find_vm(s, who, vm, errp);
        if (one) {
            append_all(list, one);
        }
        g_mutex_unlock(&s->mutex);
        return one ? g_steal_pointer(&list) : NULL;
    }
    g_hash_table_iter_init(&i, s->vms);
    while (g_hash_table_iter_next(&i, NULL, &value)) {
        one = value;
        if (may_see(s, who, one->owner)) {
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
    v = find_vm(s, who, vm, errp);
    if (v) {
        c = find(v, name, NULL);
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
    v = find_vm(s, who, vm, errp);
    ok = v;
    while (ok && v->list->len > keep) {
        Checkpoint *c = g_ptr_array_index(v->list, 0);

        g_ptr_array_add(names, g_strdup(c->name));
        ok = remove_at(s, v, 0, errp);
    }
    if (v) {
        forget_if_empty(s, v);
    }
    g_mutex_unlock(&s->mutex);
    return ok ? g_steal_pointer(&names) : NULL;
}

static bool remove_named(Store *s, Vm *vm, const char *name, const char *set,
                         GError **errp)
{
    unsigned at;
    const Checkpoint *c = find(vm, name, &at);

    if (!c || (set && g_strcmp0(c->set, set))) {
        return ms_fail(errp, "there is no checkpoint '%s' of '%s'%s%s", name,
                       vm->name, set ? " in set " : "", set ? set : "");
    }
    return remove_at(s, vm, at, errp);
}

bool store_remove(Store *s, const char *who, const char *vm, const char *name,
                  const char *set, GError **errp)
{
    bool ok = false;
    Vm *v;

    g_mutex_lock(&s->mutex);
    v = find_vm(s, who, vm, errp);
    if (v) {
        ok = remove_named(s, v, name, set, errp);
        forget_if_empty(s, v);
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
        f->disk += disk_of(vm);
    }
    g_mutex_unlock(&s->mutex);
    g_mutex_lock(&s->budget.lock);
    f->memory = s->budget.used;
    f->memory_limit = s->budget.limit;
    g_mutex_unlock(&s->budget.lock);
}
