/*
 * TLM checkpoint: threads that share the work of a pause
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_CREW_H
#define TLM_CREW_H

typedef struct TlmCrew TlmCrew;

/* Starts threads, one less than host CPUs that QEMU may use, some at most */
TlmCrew *tlm_crew_new(void);
/* Joins them */
void tlm_crew_free(TlmCrew *crew);
/*
 * Calls @work once for each part from 0 to @parts - 1, in threads of the crew
 * and in the caller's.  Returns when all calls have returned.  One caller at a
 * time; it may hold locks, and @work must not take them.
 */
void tlm_crew_do(TlmCrew *crew, unsigned long parts,
                 void (*work)(void *opaque, unsigned long part),
                 void *opaque);

#endif
