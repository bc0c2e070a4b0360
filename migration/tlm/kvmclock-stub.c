/*
 * TLM: a guest without kvmclock cannot be told that it was paused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "throttle.h"

void tlm_tell_guest_paused(int64_t since_ns)
{
}
