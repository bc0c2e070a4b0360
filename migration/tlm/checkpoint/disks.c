/*
 * TLM checkpoint: the disks go on in overlays, from the same moment as RAM
 *
 * When the guest was stopped, the block layer has completed and flushed all
 * that it had asked for: the images have exactly what RAM knows of.  From then
 * on they are only read.  The block layer's own transaction puts the overlays
 * on top; it drains iothreads, and takes back what it has done if anything
 * fails.
 *
 * It is meant for the main loop's thread.  Here the coordinator has the BQL,
 * which is what the block layer asks for, and the main loop waits where it has
 * no operation on the graph half done.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-transaction.h"
#include "block/block.h"
#include "block/block_int.h"
#include "system/block-backend.h"
#include "disks.h"

static bool check_one(const BlockdevSnapshot *disk, Error **errp)
{
    BlockDriverState *bs, *overlay;
    int64_t size, overlay_size;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    bs = bdrv_lookup_bs(disk->node, disk->node, NULL);
    if (!bs) {
        error_setg(errp, "There is no disk with the node name '%s'",
                   disk->node);
        return false;
    }
    overlay = bdrv_lookup_bs(NULL, disk->overlay, NULL);
    if (!overlay) {
        error_setg(errp, "There is no overlay with the node name '%s': add it "
                   "by 'blockdev-add', with 'backing': null", disk->overlay);
        return false;
    }
    if (!QLIST_EMPTY(&overlay->parents)) {
        error_setg(errp, "Overlay '%s' is in use already", disk->overlay);
        return false;
    }
    if (!overlay->drv || !overlay->drv->supports_backing) {
        error_setg(errp, "Overlay '%s' has a format without backing files; "
                   "use qcow2", disk->overlay);
        return false;
    }
    if (bdrv_cow_child(overlay)) {
        error_setg(errp, "Overlay '%s' has a backing file already: add it with "
                   "'backing': null", disk->overlay);
        return false;
    }
    if (bdrv_is_read_only(overlay)) {
        error_setg(errp, "Overlay '%s' is read-only", disk->overlay);
        return false;
    }
    size = bdrv_getlength(bs);
    overlay_size = bdrv_getlength(overlay);
    if (size < 0 || overlay_size != size) {
        error_setg(errp, "Overlay '%s' has %" PRId64 " bytes, and disk '%s' "
                   "has %" PRId64 ": they must be of the same size",
                   disk->overlay, overlay_size, disk->node, size);
        return false;
    }
    return true;
}

/* Is @name a node of a disk before @end, or an overlay of one? */
static bool named_before(BlockdevSnapshotList *disks,
                         const BlockdevSnapshotList *end, const char *name)
{
    for (; disks != end; disks = disks->next) {
        if (!strcmp(disks->value->node, name) ||
            !strcmp(disks->value->overlay, name)) {
            return true;
        }
    }
    return false;
}

bool tlm_disks_check(BlockdevSnapshotList *disks, Error **errp)
{
    for (BlockdevSnapshotList *d = disks; d; d = d->next) {
        const char *node = d->value->node, *overlay = d->value->overlay;
        bool twice = named_before(disks, d, node);

        if (twice || named_before(disks, d, overlay)) {
            error_setg(errp, "'%s' is named twice in 'disks'",
                       twice ? node : overlay);
            return false;
        }
        if (!check_one(d->value, errp)) {
            return false;
        }
    }
    return true;
}

bool tlm_disks_switch(BlockdevSnapshotList *disks, Error **errp)
{
    g_autoptr(TransactionActionList) actions = NULL;
    ERRP_GUARD();

    if (!tlm_disks_check(disks, errp)) {
        return false;
    }
    for (BlockdevSnapshotList *d = disks; d; d = d->next) {
        TransactionAction *a = g_new0(TransactionAction, 1);

        a->type = TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT;
        a->u.blockdev_snapshot.data = g_new0(BlockdevSnapshot, 1);
        a->u.blockdev_snapshot.data->node = g_strdup(d->value->node);
        a->u.blockdev_snapshot.data->overlay = g_strdup(d->value->overlay);
        QAPI_LIST_PREPEND(actions, a);
    }
    qmp_transaction(actions, NULL, errp);
    return !*errp;
}
