/*
 * QTest for TLM: a forwarder between source and destination
 *
 * It can stop to forward, and reset one of the connections.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_PROXY_H
#define TLM_TEST_PROXY_H

#include <netinet/in.h>

/* A connection: a multifd channel's number, or this */
#define TLM_PROXY_MAIN -1

typedef enum TlmProxyFlow {
    TLM_PROXY_ALL,
    TLM_PROXY_ONLY_FIRST,       /* what is said in the others stays in them */
    TLM_PROXY_NONE,
} TlmProxyFlow;

typedef struct TlmProxy TlmProxy;

/* @target: tcp:127.0.0.1:PORT.  Everything is forwarded at first. */
TlmProxy *tlm_proxy_new(const char *target);
/* Closes all connections */
void tlm_proxy_free(TlmProxy *p);

/* For the source to connect to */
const char *tlm_proxy_uri(const TlmProxy *p);

/* What is forwarded from now on */
void tlm_proxy_forward(TlmProxy *p, TlmProxyFlow flow);
/* Resets the connection with this number, at both sides */
void tlm_proxy_reset(TlmProxy *p, int id);
/* Sent to the destination in a multifd channel */
uint64_t tlm_proxy_bytes(TlmProxy *p, unsigned id);

/* An address, and a socket that listens there; gives its port */
struct sockaddr_in tlm_loopback(unsigned port);
int tlm_listen_loopback(unsigned *port, int backlog);

#endif
