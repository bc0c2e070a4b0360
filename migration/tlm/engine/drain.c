/*
 * TLM: lets the channels run empty before the device state is sent
 *
 * A channel is done with a packet when the kernel has taken it; megabytes
 * may still be queued there.  The device state goes over the main
 * connection, which has been idle: sent behind that, it competes with all
 * channels, from a small congestion window, and what it loses on the way
 * costs retransmission timeouts.  The destination does not look at it
 * before it has all of RAM, so that waiting costs a round trip at most.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#ifdef CONFIG_LINUX
#include <sys/ioctl.h>
#include <linux/sockios.h>
#endif
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "../internal.h"
#include "../trace.h"

/* No acknowledgement for as long: the queue is not what holds it up */
#define STALLED_NS (50 * SCALE_MS)
/*
 * A channel's last segment, 64 KiB at most: TCP may acknowledge it as late
 * as 40 ms after its arrival
 */
#define TAIL_BYTES (64 * KiB)

/* Where tcpi_bytes_acked is in the kernel's struct tcp_info, Linux 4.1 */
#define TCP_INFO_BYTES_ACKED 120

/* -1 if it is none */
static int channel_socket(QIOChannel *ioc)
{
    if (object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_TLS)) {
        ioc = QIO_CHANNEL_TLS(ioc)->master;
    }
    if (!object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_SOCKET)) {
        return -1;
    }
    return QIO_CHANNEL_SOCKET(ioc)->fd;
}

/* Bytes that the peer's kernel has not acknowledged; 0 if not known */
static uint64_t channel_queued(QIOChannel *ioc)
{
    int queued = 0;

#ifdef SIOCOUTQ
    int fd = channel_socket(ioc);

    if (fd >= 0 && ioctl(fd, SIOCOUTQ, &queued) < 0) {
        return 0;
    }
#endif
    return queued;
}

/* Bytes that it has; 0 if not known */
static uint64_t channel_acked(QIOChannel *ioc)
{
    uint64_t acked = 0;

#ifdef CONFIG_LINUX
    /* netinet/tcp.h may not have it, and does not go with linux/tcp.h */
    char info[TCP_INFO_BYTES_ACKED + sizeof(acked)];
    socklen_t len = sizeof(info);
    int fd = channel_socket(ioc);

    if (fd >= 0 && !getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) &&
        len == sizeof(info)) {
        memcpy(&acked, info + TCP_INFO_BYTES_ACKED, sizeof(acked));
    }
#endif
    return acked;
}

/* On all channels.  Coordinator; or with the BQL held. */
uint64_t tlm_queued_bytes(void)
{
    uint64_t queued = 0;

    for (int i = 0; i < migrate_multifd_channels(); i++) {
        queued += channel_queued(multifd_send_channel(i));
    }
    return queued;
}

/* The same, acknowledged; 0 if that is not known of all of them */
uint64_t tlm_acked_bytes(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < migrate_multifd_channels(); i++) {
        uint64_t acked = channel_acked(multifd_send_channel(i));

        if (!acked) {
            return 0;
        }
        sum += acked;
    }
    return sum;
}

/*
 * Waits until hardly anything is queued, or that does not change any more.
 * After multifd_send_sync_main(), without the BQL.
 */
void tlm_drain(void)
{
    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int64_t now_ns = start_ns, moved_ns = start_ns;
    uint64_t first = tlm_queued_bytes(), left = first;
    uint64_t tail = migrate_multifd_channels() * TAIL_BYTES;

    QEMU_LOCK_GUARD(&tlm.lock);

    while (left > tail && !tlm.cancelled &&
           now_ns < moved_ns + STALLED_NS) {
        uint64_t before = left;

        /* The kernel does not tell; done is signalled by tlm_cancel() */
        qemu_cond_timedwait(&tlm.done, &tlm.lock, 1);
        left = tlm_queued_bytes();
        now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        if (left < before) {
            moved_ns = now_ns;
        }
    }
    trace_tlm_drain(first, left, (now_ns - start_ns) / SCALE_US);
}
