/*
 * TLM: vCPU over-commit: the inside of TlmOc, for overcommit.c and unit tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_INT_H
#define TLM_OVERCOMMIT_INT_H

#include "backend.h"
#include "overcommit.h"

struct TlmOc {
    TlmOcHold hold;
    TlmOcMethod method;
    char *root;
    char *why_not;          /* the methods tried before the one in use */
};

#endif
