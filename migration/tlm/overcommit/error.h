/*
 * TLM: vCPU over-commit: kinds of errors, and several errors in one text
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_ERROR_H
#define TLM_OVERCOMMIT_ERROR_H

typedef enum TlmOcError {
    /* An argument is wrong: nothing was changed */
    TLM_OC_ERROR_INVALID,
    /* No placement method can be used: use the next (throttle, event) */
    TLM_OC_ERROR_UNAVAILABLE,
    /* A thread or cgroup could not be put back or verified: see the message */
    TLM_OC_ERROR_RESTORE,
} TlmOcError;

#define TLM_OC_ERROR tlm_oc_error_quark()
GQuark tlm_oc_error_quark(void);

/* Adds @message, with @prefix if not NULL, to the list @text */
void tlm_oc_add_message(GString *text, const char *prefix,
                        const char *message);

#endif
