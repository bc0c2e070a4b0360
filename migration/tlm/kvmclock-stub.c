/*
 * TLM: a guest that has no kvmclock cannot be told that it has been paused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "throttle.h"

void tlm_tell_guest_paused(int64_t since_ns)
{
}
