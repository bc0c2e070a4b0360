/*
 * Stands in for what QEMU generates of migration/tlm/trace-events where the
 * engine is tested without QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define trace_tlm_burst(epoch, bytes, ns) ((void)0)
#define trace_tlm_hand_over(revived, runs, filled, owed) ((void)0)
#define trace_tlm_sync(epoch, us, unsent, dirty, hot, fresh) ((void)0)
#define trace_tlm_drain(queued, left, us) ((void)0)
