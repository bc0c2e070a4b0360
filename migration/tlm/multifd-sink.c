/*
 * TLM: QEMU's multifd channels, as the engine sees them
 *
 * A channel is a lane.  A multifd SYNC on all channels, with a flush of the
 * main stream, is the flush.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#ifdef CONFIG_LINUX
#include <sys/ioctl.h>
#include <linux/sockios.h>
#endif
#include "qemu/atomic.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "checkpoint/keep.h"
#include "multifd-sink.h"
#include "tlm.h"
#include "trace.h"

/* Where tcpi_bytes_acked is in the kernel's struct tcp_info, Linux 4.1 */
#define TCP_INFO_BYTES_ACKED 120

/* Unless the user sets it: one channel in so many carries dirty pages */
#define DTX_SHARE 4

unsigned tlm_channel_group(unsigned id, unsigned channels)
{
    unsigned dtx = migrate_get_current()->parameters.tlm_dtx_channels;

    if (!migrate_tlm()) {
        return TLM_MTX;
    }
    if (!dtx) {
        dtx = MAX(1, channels / DTX_SHARE);
    }
    /* Checked when the migration began, but it may have changed since */
    dtx = MIN(dtx, channels - 1);
    return id < channels - dtx ? TLM_MTX : TLM_DTX;
}

void tlm_multifd_sink_init(TlmMultifdSink *sink, const TlmGuestRam *ram)
{
    sink->ram = ram;
    for (unsigned i = 0; i < TLM_WORKERS; i++) {
        sink->data[i] = multifd_send_data_alloc();
    }
}

void tlm_multifd_sink_destroy(TlmMultifdSink *sink)
{
    for (unsigned i = 0; i < TLM_WORKERS; i++) {
        g_clear_pointer(&sink->data[i], multifd_send_data_free);
    }
}

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

/* Bytes that the peer's kernel has acknowledged; 0 if not known */
static uint64_t channel_acked(QIOChannel *ioc)
{
    uint64_t acked = 0;

#ifdef CONFIG_LINUX
    /* netinet/tcp.h may lack it, and cannot be included with linux/tcp.h */
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

uint64_t tlm_multifd_queued_bytes(void)
{
    uint64_t queued = 0;

    for (int i = 0; i < migrate_multifd_channels(); i++) {
        queued += channel_queued(multifd_send_channel(i));
    }
    return queued;
}

bool tlm_multifd_sending(const TlmMultifdSink *sink)
{
    return qatomic_read(&sink->sending);
}

static bool send_pages(TlmMultifdSink *sink, TlmGroup group, RAMBlock *rb,
                       const unsigned long *page, unsigned num)
{
    MultiFDPages_t *pages = &sink->data[group]->u.ram;
    bool sent;

    multifd_set_payload_type(sink->data[group], MULTIFD_PAYLOAD_RAM);
    pages->block = rb;
    pages->num = num;
    pages->normal_num = 0;
    for (unsigned i = 0; i < num; i++) {
        pages->offset[i] = (ram_addr_t)page[i] << sink->ram->page_bits;
    }
    trace_tlm_batch(tlm_group_names[group], rb->idstr, page[0], num);
    qatomic_inc(&sink->sending);
    sent = multifd_send_group(&sink->data[group], group);
    qatomic_dec(&sink->sending);
    return sent;
}

static bool sink_send(void *opaque, TlmGroup group, const TlmBatch *batch)
{
    TlmMultifdSink *sink = opaque;
    RAMBlock *rb = g_ptr_array_index(sink->ram->blocks, batch->block);
    unsigned num;

    for (unsigned i = 0; i < batch->num; i += num) {
        num = batch->num - i;
        if (sink->keep) {
            rb = tlm_keep_source(sink->keep, batch->block, batch->page + i,
                                 &num);
        }
        if (!send_pages(sink, group, rb, batch->page + i, num)) {
            return false;
        }
    }
    return true;
}

static int sink_wait_idle(void *opaque)
{
    TlmMultifdSink *sink = opaque;
    int ret;

    qatomic_inc(&sink->sending);
    ret = multifd_send_sync_main(MULTIFD_SYNC_LOCAL);
    qatomic_dec(&sink->sending);
    return ret;
}

/* The ending of a RAM section in which pages were queued */
static int end_of_section(QEMUFile *f)
{
    int ret = multifd_ram_flush_and_sync(f);

    if (ret < 0) {
        return ret;
    }
    qemu_put_be64(f, RAM_SAVE_FLAG_EOS);
    ram_transferred_add(8);
    return qemu_fflush(f);
}

static int sink_flush(void *opaque)
{
    TlmMultifdSink *sink = opaque;
    int ret;

    qatomic_inc(&sink->sending);
    ret = end_of_section(sink->f);
    qatomic_dec(&sink->sending);
    return ret;
}

static void sink_cancel(void *opaque)
{
    multifd_send_cancel();
}

static uint64_t sink_sent(void *opaque)
{
    return migration_transferred_bytes();
}

static uint64_t sink_queued(void *opaque)
{
    return tlm_multifd_queued_bytes();
}

static uint64_t sink_acked(void *opaque)
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

static uint64_t sink_max_rate(void *opaque)
{
    return migrate_max_bandwidth();
}

static unsigned sink_lanes(void *opaque)
{
    return migrate_multifd_channels();
}

const TlmSinkOps tlm_multifd_sink_ops = {
    .send = sink_send,
    .wait_idle = sink_wait_idle,
    .flush = sink_flush,
    .cancel = sink_cancel,
    .sent = sink_sent,
    .queued = sink_queued,
    .acked = sink_acked,
    .max_rate = sink_max_rate,
    .lanes = sink_lanes,
};
