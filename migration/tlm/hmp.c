/*
 * TLM: HMP commands, and what info migrate shows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-migration-tlm.h"
#include "qapi/qapi-commands-migration-tlm-checkpoint.h"
#include "qapi/qapi-visit-migration-tlm-checkpoint.h"
#include "qapi/qobject-input-visitor.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qemu/keyval.h"
#include "qobject/qdict.h"
#include "decision.h"
#include "tlm.h"

void hmp_migrate_tlm_switchover(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_migrate_tlm_switchover(&err);
    hmp_handle_error(mon, err);
}

/* The arguments of the QMP command as one string: "URI,mode=copy,..." */
static MigrationTlmCheckpointOptions *checkpoint_options(const char *text,
                                                         Error **errp)
{
    MigrationTlmCheckpointOptions *o = NULL;
    QDict *args = keyval_parse(text, "uri", NULL, errp);
    Visitor *v;

    if (args) {
        v = qobject_input_visitor_new_keyval(QOBJECT(args));
        visit_type_MigrationTlmCheckpointOptions(v, NULL, &o, errp);
        visit_free(v);
        qobject_unref(args);
    }
    return o;
}

void hmp_tlm_checkpoint(Monitor *mon, const QDict *qdict)
{
    const char *text = qdict_get_str(qdict, "options");
    Error *err = NULL;
    MigrationTlmCheckpointOptions *o = checkpoint_options(text, &err);

    if (o) {
        qmp_tlm_checkpoint(o, &err);
        qapi_free_MigrationTlmCheckpointOptions(o);
    }
    hmp_handle_error(mon, err);
}

void hmp_tlm_checkpoint_forget(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_tlm_checkpoint_forget(&err);
    hmp_handle_error(mon, err);
}

static void show_prediction(Monitor *mon, const MigrationTlmForecast *f)
{
    monitor_printf(mon, "tlm eta: %" PRIu64 " ms\n", f->eta);
    monitor_printf(mon, "tlm predicted total: %" PRIu64 " ms\n", f->total);
    monitor_printf(mon, "tlm predicted downtime: %" PRIu64 " ms\n",
                   f->downtime);
}

static void show_bound(Monitor *mon, const MigrationTlmBound *bound)
{
    monitor_printf(mon, "tlm bound: %" PRIu64 " ms", bound->time);
    if (bound->has_slack) {
        monitor_printf(mon, ", slack %" PRId64 " ms", bound->slack);
    }
    monitor_printf(mon, "%s\n", bound->reachable ? "" : " (out of reach)");
}

static void show_ram(Monitor *mon, const MigrationTlmRam *ram)
{
    monitor_printf(mon, "tlm mtx: %" PRIu64 " kbytes\n", ram->mtx >> 10);
    monitor_printf(mon, "tlm dtx: %" PRIu64 " kbytes\n", ram->dtx >> 10);
    monitor_printf(mon, "tlm stop: %" PRIu64 " kbytes\n", ram->stop >> 10);
    monitor_printf(mon, "tlm resent: %" PRIu64 " kbytes\n",
                   ram->resent >> 10);
    monitor_printf(mon, "tlm skipped: %" PRIu64 " kbytes\n",
                   ram->skipped >> 10);
    monitor_printf(mon, "tlm unsent: %" PRIu64 " kbytes\n",
                   ram->unsent >> 10);
    monitor_printf(mon, "tlm dirty: %" PRIu64 " kbytes, hot %" PRIu64
                   " kbytes\n", ram->dirty >> 10, ram->hot >> 10);
}

static void show_overcommit(Monitor *mon, const MigrationTlmOvercommit *oc)
{
    if (oc->has_cpus) {
        monitor_printf(mon, "tlm overcommit: %u host CPUs by %s\n", oc->cpus,
                       MigrationTlmOvercommitMethodInUse_str(oc->method));
    }
    if (oc->note) {
        monitor_printf(mon, "tlm overcommit note: %s\n", oc->note);
    }
}

static void show_downtime(Monitor *mon, const MigrationTlmDowntime *d)
{
    monitor_printf(mon, "tlm downtime: vm stop %" PRIu64 " us, sync %" PRIu64
                   " us, ram %" PRIu64 " us, hold %" PRIu64 " us, device %"
                   PRIu64 " us, switchover %" PRIu64 " us\n",
                   d->vm_stop, d->sync, d->ram, d->hold, d->device,
                   d->switchover);
    if (d->has_disks) {
        monitor_printf(mon, "tlm downtime: disks %" PRIu64 " us\n", d->disks);
    }
}

static void show_postcopy(Monitor *mon, const MigrationTlmPostcopy *p)
{
    monitor_printf(mon, "tlm postcopy: %" PRIu64 " of %" PRIu64 " kbytes "
                   "remaining after %" PRIu64 " ms, %" PRIu64 " requests, "
                   "downtime %" PRIu64 " us\n", p->remaining >> 10,
                   p->owed >> 10, p->time, p->requests, p->downtime);
}

static void show_text(Monitor *mon, const char *what, const char *text)
{
    if (text) {
        monitor_printf(mon, "tlm checkpoint %s: %s\n", what, text);
    }
}

static void show_checkpoint(Monitor *mon, const MigrationTlmCheckpoint *c,
                            const MigrationTlmRam *ram)
{
    show_text(mon, "method", MigrationTlmCheckpointMethod_str(c->method));
    monitor_printf(mon, "tlm checkpoint copied: %" PRIu64 " kbytes, %" PRIu64
                   " writes of the guest waited\n",
                   c->copied >> 10, c->faults);
    monitor_printf(mon, "tlm checkpoint flushed: %" PRIu64 " kbytes\n",
                   ram->stop >> 10);
    if (c->has_copy_rate) {
        monitor_printf(mon, "tlm checkpoint copy rate: %" PRIu64
                       " kbytes/s\n", c->copy_rate >> 10);
    }
    if (c->has_disks_switched) {
        show_text(mon, "disks", c->disks_switched ? "on the overlays" :
                                                    "as before");
    }
    show_text(mon, "note", c->note);
    show_text(mon, "generation", c->generation);
    show_text(mon, "parent", c->parent);
    show_text(mon, "is a full one", c->full_reason);
}

void tlm_hmp_info(Monitor *mon, const MigrationTlmInfo *t)
{
    monitor_printf(mon, "tlm stage: %s\n", MigrationTlmStage_str(t->stage));
    monitor_printf(mon, "tlm progress: %.1f %%\n", t->progress);
    monitor_printf(mon, "tlm decision: %s\n",
                   tlm_decision_text(t->decision));
    show_prediction(mon, t->prediction);
    if (t->bound) {
        show_bound(mon, t->bound);
    }
    show_ram(mon, t->ram);
    monitor_printf(mon, "tlm bandwidth: %" PRIu64 " kbytes/s\n",
                   t->bandwidth >> 10);
    monitor_printf(mon, "tlm dirty rate: %" PRIu64 " kbytes/s\n",
                   t->guest->dirty_rate >> 10);
    monitor_printf(mon, "tlm guest: at %.1f %% of full speed, lost work %"
                   PRIu64 " ms\n", t->guest->speed * 100,
                   t->guest->lost_work);
    monitor_printf(mon, "tlm epochs: %" PRIu64 "\n", t->epochs->count);
    if (t->overcommit) {
        show_overcommit(mon, t->overcommit);
    }
    if (t->downtime) {
        show_downtime(mon, t->downtime);
    }
    if (t->postcopy) {
        show_postcopy(mon, t->postcopy);
    }
    if (t->checkpoint) {
        show_checkpoint(mon, t->checkpoint, t->ram);
    }
}
