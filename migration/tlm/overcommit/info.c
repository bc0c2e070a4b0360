/*
 * TLM: vCPU over-commit: what is in use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "overcommit-int.h"

const char *tlm_oc_method_in_use(const TlmOc *oc)
{
    return oc->backend && oc->level ? oc->backend->name : NULL;
}

unsigned tlm_oc_level(const TlmOc *oc)
{
    return oc->backend ? oc->level : 0;
}

char *tlm_oc_cpus_in_use(const TlmOc *oc)
{
    return tlm_oc_level(oc) && !oc->backend->quota ?
           tlm_cpus_format(&oc->cpus) : NULL;
}

const char *tlm_oc_why_not(const TlmOc *oc)
{
    return tlm_oc_level(oc) && *oc->why_not ? oc->why_not : NULL;
}
