/*
 * Firmware-ROM test guest: memory layout, known to guest and host alike
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_ROM_LAYOUT_H
#define TLM_ROM_LAYOUT_H

#define ROM_BASE            0xf0000
#define ROM_SIZE            0x10000

#define TRAMPOLINE_BASE     0x8000      /* startup IPI vector 8 */
#define CLOCK_BASE          0xc000      /* a kvmclock for each vCPU */
#define CLOCK_SIZE          0x40
#define PROGRESS_BASE       0x10000     /* struct progress, host-readable */
#define PROGRESS_AP_COUNTER 0x0c        /* offset of its ap_counter */
#define STACK_BASE          0x20000
#define STACK_SIZE          0x1000
#define MAX_VCPUS           64

#define SEL_CODE            0x08
#define SEL_DATA            0x10

#endif
