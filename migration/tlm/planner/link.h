/*
 * TLM planner: what is known of the link
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_LINK_H
#define TLM_PLANNER_LINK_H

#include "now.h"

/* What others see of it, as of this step; rates in wire bytes/s */
typedef struct TlmLinkView {
    double live;                /* while the guest runs; 0: not known */
    /* in the stop stage, where no cap binds: */
    double safe;                /* what can be counted on */
    double guess;               /* what it probably carries */
    double most;                /* no one can say that it carries more */
    double measured;            /* or what the cap gives; 0: nothing */
    double unsteady;            /* share of it that epochs lack, or more */
    double seen;                /* s of the link that it rests on */
    bool sampled;               /* it rests on one epoch at least */
    bool trusted;               /* on several, or the user has said it */
    bool known;                 /* on more than a cap */
    bool capped;                /* the cap is what binds */
    bool dead;                  /* it is unlikely to take anything now */
    /* what becomes of guest bytes on the wire */
    double wire_per_byte;       /* of pages with data */
    double zero_share;          /* of what mtx has sent */
    double scan_rate;           /* guest bytes/s through zero pages; or 0 */
} TlmLinkView;

/* Owns what has been learned of the link */
typedef struct TlmLink TlmLink;

TlmLink *tlm_link_new(void);
void tlm_link_free(TlmLink *l);

/*
 * Learn from a sample; @in_pass: mtx has sent some of it.  Returns true if a
 * binding cap has just been raised or lifted.  Then what was measured under the
 * cap is forgotten, and so is the sample, which is a mixture.
 */
bool tlm_link_learn(TlmLink *l, const TlmPlanNow *n, bool in_pass);

void tlm_link_view(const TlmLink *l, const TlmPlanNow *n, TlmLinkView *v);

/* Seconds that mtx needs for a byte of RAM, a link of @bw being its own */
double tlm_link_unsent_cost(const TlmLinkView *v, double bw);

#endif
