/*
 * Multifd channels that connect to addresses of their own
 *
 * "migrate" may be given channels of type "data" beside the main one.  With n
 * of them, multifd channel i connects to number i mod n.  A destination that
 * listens at several addresses, or several programs that keep one checkpoint
 * together, receive so over several links.  This does not depend on
 * capability "tlm".
 *
 * The addresses change only while there is no migration thread, under the
 * BQL.  So that thread, and the callbacks that it waits for, read them without
 * a lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "io/channel-socket.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "tlm.h"

/* SocketAddress of the current or the last migration; NULL: none */
static GPtrArray *addresses;

/* New array of what @channels has of them, which are not copied; or NULL */
static GPtrArray *data_entries(const MigrationChannelList *channels)
{
    GPtrArray *found = NULL;

    for (; channels; channels = channels->next) {
        if (channels->value->channel_type == MIGRATION_CHANNEL_TYPE_DATA) {
            found = found ?: g_ptr_array_new();
            g_ptr_array_add(found, channels->value->addr);
        }
    }
    return found;
}

/* Can any number of connections be made to it? */
static bool takes_connections(const MigrationAddress *addr)
{
    if (addr->transport != MIGRATION_ADDRESS_TYPE_SOCKET) {
        return false;
    }
    switch (addr->u.socket.type) {
    case SOCKET_ADDRESS_TYPE_INET:
    case SOCKET_ADDRESS_TYPE_UNIX:
    case SOCKET_ADDRESS_TYPE_VSOCK:
        return true;
    default:
        return false;
    }
}

static bool check(const GPtrArray *data, const MigrationAddress *main_addr,
                  bool resume, Error **errp)
{
    if (resume) {
        error_setg(errp, "Channels of type 'data' do not go with 'resume'");
        return false;
    }
    if (!migrate_multifd()) {
        error_setg(errp, "Channels of type 'data' need capability 'multifd'");
        return false;
    }
    if (migrate_postcopy_preempt()) {
        error_setg(errp, "Channels of type 'data' do not go with capability "
                   "'postcopy-preempt'");
        return false;
    }
    if (data->len > migrate_multifd_channels()) {
        error_setg(errp, "There are %u channels of type 'data', more than "
                   "multifd-channels, which is %d",
                   data->len, migrate_multifd_channels());
        return false;
    }
    if (!takes_connections(main_addr)) {
        error_setg(errp, "With channels of type 'data', the main channel must "
                   "be a socket of type inet, unix or vsock");
        return false;
    }
    for (unsigned i = 0; i < data->len; i++) {
        if (!takes_connections(g_ptr_array_index(data, i))) {
            error_setg(errp, "Channels of type 'data' must be sockets of type "
                       "inet, unix or vsock");
            return false;
        }
    }
    return true;
}

static void free_address(gpointer addr)
{
    qapi_free_SocketAddress(addr);
}

bool tlm_data_begin(const MigrationChannelList *channels,
                    const MigrationAddress *main_addr, bool resume,
                    Error **errp)
{
    g_autoptr(GPtrArray) data = data_entries(channels);

    if (data && !check(data, main_addr, resume, errp)) {
        return false;
    }
    if (migration_is_running()) {
        return true;            /* it is resumed, or this one is refused */
    }
    if ((data || addresses) &&
        migrate_get_current()->migration_thread_running) {
        error_setg(errp, "The previous migration has not been cleaned up "
                   "yet; try again");
        return false;
    }
    g_clear_pointer(&addresses, g_ptr_array_unref);
    if (data) {
        addresses = g_ptr_array_new_with_free_func(free_address);
        for (unsigned i = 0; i < data->len; i++) {
            const MigrationAddress *addr = g_ptr_array_index(data, i);

            g_ptr_array_add(addresses,
                            QAPI_CLONE(SocketAddress, &addr->u.socket));
        }
    }
    return true;
}

static SocketAddress *address_of(unsigned id)
{
    return g_ptr_array_index(addresses, id % addresses->len);
}

bool tlm_data_connect(unsigned id, QIOTaskFunc done, void *opaque)
{
    if (!addresses) {
        return false;
    }
    qio_channel_socket_connect_async(qio_channel_socket_new(), address_of(id),
                                     done, opaque, NULL, NULL);
    return true;
}

const char *tlm_data_hostname(unsigned id, const char *main_hostname)
{
    SocketAddress *addr;

    if (!addresses) {
        return main_hostname;
    }
    addr = address_of(id);
    return addr->type == SOCKET_ADDRESS_TYPE_INET ? addr->u.inet.host : NULL;
}
