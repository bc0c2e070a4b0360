/*
 * TLM: slows the guest by pausing all vCPUs except for short pulses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_THROTTLE_H
#define TLM_THROTTLE_H

/*
 * Run the vCPUs at @speed, 0 (paused) to 1 (full).  Returns at once; no
 * locks needed.
 */
void tlm_throttle_set(double speed);
/*
 * End the throttling.  With @keep_paused the vCPUs stay as they are, because
 * the caller is about to stop the VM; from here on the pause counts as
 * downtime.  Else the main loop makes them run at full speed, if the VM is
 * running.  Called without the BQL; idempotent.
 */
void tlm_throttle_end(bool keep_paused);
/* A new migration begins; BQL held */
void tlm_throttle_reset(void);
/* How long the vCPUs have been paused in this migration, in ns */
int64_t tlm_throttle_paused_ns(void);
/*
 * In kvmclock.c, called by throttle.c: the vCPUs, paused since @since_ns, are
 * about to be resumed.  Main loop, BQL held.
 */
void tlm_tell_guest_paused(int64_t since_ns);

#endif
