/*
 * TLM checkpoint: the command, and what it changes for one run
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-commands-migration-tlm-checkpoint.h"
#include "qapi/qapi-visit-migration-tlm-checkpoint.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "chain.h"
#include "checkpoint.h"
#include "disks.h"
#include "lease.h"
#include "options.h"

/*
 * ms.  The gate waits for other guests of a set to stop, which takes some
 * milliseconds each; clients of this guest notice a second.
 */
#define GATE_TIMEOUT 1000

/* Before a checkpoint was asked for; BQL */
static bool old_caps[MIGRATION_CAPABILITY__MAX];

static void put_back(void)
{
    memcpy(migrate_get_current()->capabilities, old_caps, sizeof(old_caps));
    tlm_checkpoint_set_options(NULL);
    tlm_lease_stop();
}

/* The end, good or bad, when all has been cleaned up; BQL held */
static int notified(NotifierWithReturn *n, MigrationEvent *e, Error **errp)
{
    if (tlm_checkpoint_options() && e->type != MIG_EVENT_PRECOPY_SETUP) {
        tlm_checkpoint_cleanup();
        tlm_chain_done(migrate_get_current()->state ==
                       MIGRATION_STATUS_COMPLETED);
        put_back();
    }
    return 0;
}

static bool set_capabilities(bool file, Error **errp)
{
    MigrationState *s = migrate_get_current();
    bool caps[MIGRATION_CAPABILITY__MAX];

    memcpy(caps, s->capabilities, sizeof(caps));
    caps[MIGRATION_CAPABILITY_TLM] = true;
    caps[MIGRATION_CAPABILITY_MULTIFD] = true;
    caps[MIGRATION_CAPABILITY_MAPPED_RAM] = file;
    if (!migrate_caps_check(s->capabilities, caps, errp)) {
        return false;
    }
    memcpy(old_caps, s->capabilities, sizeof(caps));
    memcpy(s->capabilities, caps, sizeof(caps));
    return true;
}

/* Does it go to a file?  False also with @errp set. */
static bool to_file(const MigrationTlmCheckpointOptions *o, Error **errp)
{
    MigrationAddress *addr = NULL;

    if (!o->uri == !o->has_channels) {
        error_setg(errp, "Either 'uri' or 'channels' must be given");
        return false;
    }
    if (o->uri) {
        return g_str_has_prefix(o->uri, "file:");
    }
    for (MigrationChannelList *c = o->channels; c; c = c->next) {
        if (c->value->channel_type == MIGRATION_CHANNEL_TYPE_MAIN) {
            addr = c->value->addr;
        }
    }
    if (!addr) {
        error_setg(errp, "'channels' has no main channel");
        return false;
    }
    return addr->transport == MIGRATION_ADDRESS_TYPE_FILE;
}

static void set_defaults(MigrationTlmCheckpointOptions *o)
{
    if (!o->has_gate_timeout) {
        o->gate_timeout = GATE_TIMEOUT;
    }
    if (!o->has_sync) {
        o->sync = true;
    }
}

void qmp_tlm_checkpoint(MigrationTlmCheckpointOptions *arg, Error **errp)
{
    static NotifierWithReturn notifier;
    ERRP_GUARD();
    MigrationTlmCheckpointOptions *o;
    bool file;

    if (migration_is_running() || tlm_checkpoint_options()) {
        error_setg(errp, "There's a migration process in progress");
        return;
    }
    file = to_file(arg, errp);
    if (*errp || !qemu_savevm_state_only_ram(errp) ||
        !tlm_disks_check(arg->disks, errp) ||
        ((arg->incremental || arg->parent) && !tlm_chain_possible(errp)) ||
        !set_capabilities(file, errp)) {
        return;
    }
    if (!notifier.notify) {
        migration_add_notifier(&notifier, notified);
    }
    o = QAPI_CLONE(MigrationTlmCheckpointOptions, arg);
    set_defaults(o);
    tlm_checkpoint_set_options(o);
    tlm_chain_ask(arg->incremental, arg->parent);
    tlm_lease_start(o->client_timeout);
    qmp_migrate(arg->uri, arg->has_channels, arg->channels, false, false,
                false, false, errp);
    if (*errp) {
        put_back();
    }
}
