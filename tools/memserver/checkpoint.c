/*
 * A checkpoint: a generation with its name, and where it is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "checkpoint.h"
#include "parity.h"

#define NAME_MAX_SIZE 100

const char *const level_names[LEVEL__MAX] = {
    [LEVEL_MEMORY] = "memory",
    [LEVEL_DURABLE] = "durable",
};

static char *text_of(GDateTime *t)
{
    g_autofree char *second = g_date_time_format(t, "%Y-%m-%dT%H:%M:%S");

    return g_strdup_printf("%s.%06dZ", second, g_date_time_get_microsecond(t));
}

Checkpoint *checkpoint_new(const char *vm, const char *name)
{
    Checkpoint *c = g_new0(Checkpoint, 1);
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();

    g_atomic_ref_count_init(&c->refs);
    c->vm = g_strdup(vm);
    c->name = g_strdup(name);
    c->parts = 1;
    c->created = text_of(now);
    return c;
}

void checkpoint_date_after(Checkpoint *c, const char *created)
{
    g_autoptr(GDateTime) before = NULL, then = NULL;

    if (strcmp(c->created, created) > 0) {
        return;
    }
    before = g_date_time_new_from_iso8601(created, NULL);
    if (before) {
        then = g_date_time_add(before, 1 /* us */);
        g_free(c->created);
        c->created = text_of(then);
    }
}

Checkpoint *checkpoint_ref(Checkpoint *c)
{
    g_atomic_ref_count_inc(&c->refs);
    return c;
}

void checkpoint_unref(Checkpoint *c)
{
    if (!c || !g_atomic_ref_count_dec(&c->refs)) {
        return;
    }
    generation_unref(c->generation);
    parity_unref(c->parity);
    claim_unref(c->claim);
    if (c->state) {
        g_byte_array_unref(c->state);
    }
    g_free(c->vm);
    g_free(c->name);
    g_free(c->created);
    g_free(c->parent);
    g_free(c->machine);
    g_free(c->source);
    g_free(c->identity);
    g_free(c->set);
    g_free(c->head_id);
    g_free(c);
}

bool checkpoint_identify(Checkpoint *c, const char *identity)
{
    char *new = g_strdup(identity);

    if (g_atomic_pointer_compare_and_exchange(&c->identity, NULL, new)) {
        return true;
    }
    g_free(new);
    return !strcmp(checkpoint_identity(c), identity);
}

const char *checkpoint_identity(Checkpoint *c)
{
    return g_atomic_pointer_get(&c->identity);
}

bool name_is_valid(const char *name, size_t size)
{
    if (!size || size > NAME_MAX_SIZE || *name == '.' || *name == '-') {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if (!g_ascii_isalnum(name[i]) && !strchr("._-", name[i])) {
            return false;
        }
        if (!name[i]) {
            return false;
        }
    }
    return true;
}
