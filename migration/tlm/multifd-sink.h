/*
 * TLM: QEMU's multifd channels, as the engine sees them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_MULTIFD_SINK_H
#define TLM_MULTIFD_SINK_H

#include "migration/multifd.h"
#include "engine/engine.h"
#include "guest-ram.h"

typedef struct TlmMultifdSink {
    const TlmGuestRam *ram;
    struct TlmKeep *keep;       /* of a checkpoint: knows where to read */
    QEMUFile *f;                /* the main stream; coordinator */
    MultiFDSendData *data[TLM_WORKERS]; /* empty, between two batches */
    int sending;                /* threads in a write that may block; atomic */
} TlmMultifdSink;

extern const TlmSinkOps tlm_multifd_sink_ops;

/* The channels are set up; BQL held */
void tlm_multifd_sink_init(TlmMultifdSink *sink, const TlmGuestRam *ram);
/* BQL held, after tlm_engine_stop() */
void tlm_multifd_sink_destroy(TlmMultifdSink *sink);
/*
 * Does a thread wait until a channel takes bytes?  A file or a socket that
 * takes nothing is a stall, even if the kernel cannot tell what it has queued.
 * A long sync of the dirty log, or a wait for the bandwidth cap, is no stall.
 * Any thread, no locks.
 */
bool tlm_multifd_sending(const TlmMultifdSink *sink);
/*
 * Bytes that the peer's kernel has not acknowledged, on all channels; 0 if
 * not known.  Coordinator; or with the BQL held.
 */
uint64_t tlm_multifd_queued_bytes(void);

#endif
