/*
 * QTest for TLM: TLS credentials for both sides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_TLS_H
#define TLM_TEST_TLS_H

#include "framework.h"

/* For TlmTest.prepare and .end, in pairs */
bool tlm_tls_psk_prepare(TlmPair *pair);
void tlm_tls_psk_end(void);
#ifdef CONFIG_TASN1
bool tlm_tls_x509_prepare(TlmPair *pair);
void tlm_tls_x509_end(void);
#endif

#endif
