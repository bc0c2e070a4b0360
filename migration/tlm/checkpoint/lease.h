/*
 * TLM checkpoint: the end of one that nobody asks for any more
 *
 * BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_LEASE_H
#define TLM_LEASE_H

/* A checkpoint has begun.  @timeout_ms: without a question; 0: without end */
void tlm_lease_start(uint64_t timeout_ms);
/* "query-migrate": somebody wants to know how it goes */
void tlm_lease_renew(void);
/* It has ended, or there is none */
void tlm_lease_stop(void);

#endif
