/*
 * TLM: which capabilities and parameters go with it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/dirtylimit.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "internal.h"
#include "postcopy.h"
#include "tlm.h"

/*
 * The migration that was checked last cannot go by TLM, and is allowed to go
 * without.  BQL held to write.
 */
static bool left_out;

bool migrate_tlm(void)
{
    return migrate_get_current()->capabilities[MIGRATION_CAPABILITY_TLM] &&
           !left_out;
}

bool tlm_check_caps(const bool *caps, Error **errp)
{
    static const MigrationCapability excluded[] = {
        MIGRATION_CAPABILITY_XBZRLE,
        MIGRATION_CAPABILITY_AUTO_CONVERGE,
        MIGRATION_CAPABILITY_DIRTY_LIMIT,
        MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
        MIGRATION_CAPABILITY_X_COLO,
        MIGRATION_CAPABILITY_RDMA_PIN_ALL,
        MIGRATION_CAPABILITY_RELEASE_RAM,
    };

    if (!caps[MIGRATION_CAPABILITY_TLM]) {
        return true;
    }
    if (caps[MIGRATION_CAPABILITY_POSTCOPY_RAM] && !TLM_HAS_POSTCOPY) {
        error_setg(errp, "Capability 'tlm' is not compatible with "
                   "'postcopy-ram' in this QEMU: multifd and post-copy go "
                   "together from QEMU 10.1 on, at both sides; turn one of "
                   "them off");
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(excluded); i++) {
        if (caps[excluded[i]]) {
            error_setg(errp, "Capability 'tlm' is not compatible with '%s'; "
                       "turn one of them off",
                       MigrationCapability_str(excluded[i]));
            return false;
        }
    }
    return true;
}

/*
 * When libvirt saves a guest to a file, or migrates without --parallel, it
 * uses a file descriptor, without multifd.  If a tool has left 'tlm' on, for
 * instance because it was killed, these migrations must work as before.  Over
 * a socket that could carry multifd, the user has forgotten multifd.
 */
static bool can_be_left_out(const MigrationAddress *addr)
{
    return addr->transport != MIGRATION_ADDRESS_TYPE_SOCKET ||
           addr->u.socket.type == SOCKET_ADDRESS_TYPE_FD;
}

bool tlm_check(const MigrationAddress *addr, Error **errp)
{
    MigrationState *s = migrate_get_current();
    unsigned channels = migrate_multifd_channels();

    left_out = false;
    if (!migrate_tlm()) {
        return true;
    }
    if (!migrate_multifd() && can_be_left_out(addr)) {
        warn_report("Capability 'tlm' is on, but this migration is not one "
                    "by multifd: it goes without TLM, and without its bound");
        left_out = true;
        return true;
    }
    if (migration_in_incoming_postcopy()) {
        error_setg(errp, "Post-copy still brings RAM of this guest from its "
                   "previous host; try again when it has ended");
        return false;
    }
    /* Capabilities come in any order; only now all of them are known */
    if (!tlm_check_caps(s->capabilities, errp)) {
        return false;
    }
    if (!tlm_postcopy_check(errp)) {
        return false;
    }
    if (!migrate_multifd()) {
        error_setg(errp, "Capability 'tlm' requires capability 'multifd'");
        error_append_hint(errp, "Turn on 'multifd' at both sides "
                          "(virsh migrate: --parallel).\n");
        return false;
    }
    if (channels < 2) {
        error_setg(errp, "Capability 'tlm' requires parameter "
                   "'multifd-channels' to be at least 2, it is %u", channels);
        return false;
    }
    if (s->parameters.tlm_dtx_channels >= channels) {
        error_setg(errp, "Parameter 'tlm-dtx-channels' (%u) must be less "
                   "than 'multifd-channels' (%u)",
                   s->parameters.tlm_dtx_channels, channels);
        return false;
    }
    if (migrate_zero_page_detection() == ZERO_PAGE_DETECTION_LEGACY) {
        error_setg(errp, "Capability 'tlm' does not support parameter "
                   "'zero-page-detection' set to 'legacy'; use 'none', or "
                   "'multifd' if the destination is QEMU 9.0 or later");
        error_append_hint(errp, "A destination before 9.0 overlooks the zero "
                          "pages in a multifd packet.\n");
        return false;
    }
    if (migrate_mode() != MIG_MODE_NORMAL) {
        error_setg(errp, "Capability 'tlm' requires migration mode 'normal'");
        return false;
    }
    if (dirtylimit_in_service()) {
        error_setg(errp, "Capability 'tlm' does not go with a dirty page "
                   "rate limit of the vCPUs; end it with "
                   "'cancel-vcpu-dirty-limit'");
        return false;
    }
    return true;
}
