/*
 * TLM planner: when to stop the guest, how much to slow it, what to predict
 *
 * Policy only: no locks, no clocks, no sockets, no QEMU types.  The
 * coordinator feeds one sample per epoch and acts on the decision; the
 * simulator and the unit tests drive the same object code.
 *
 * The idea of a bounded total time is from Chanchio's time-bound,
 * thread-based live migration (TLM).  Throttling once, hard and late
 * instead of a slow ramp is new.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_PLANNER_H
#define TLM_PLANNER_H

/*
 * Before the guest is stopped, or handed over, the destination may be asked
 * whether it has loaded all that was sent.  When somebody waits for the end, a
 * user or a bound, nobody waits longer than this for the answer.
 */
#define TLM_PLAN_SETTLE_MS 200

/* What the live stage does once mtx has passed over all RAM */
typedef enum {
    TLM_PLAN_CONVERGE_NONE,   /* stop at the end of the pass (the slides) */
    TLM_PLAN_CONVERGE_AUTO,   /* go on while it pays, within the bound */
    TLM_PLAN_CONVERGE_POSTCOPY, /* post-copy, if a stop would be too long */
} TlmPlanConverge;

/* What to do about a bound that cannot be kept */
typedef enum {
    TLM_PLAN_BOUND_COMPLETE,  /* overrun as little as possible */
    TLM_PLAN_BOUND_CANCEL,    /* leave the guest at the source */
    TLM_PLAN_BOUND_POSTCOPY,  /* keep it by post-copy, at the last moment */
} TlmPlanBoundAction;

typedef enum {
    TLM_PLAN_CONTINUE,        /* run another epoch */
    TLM_PLAN_SWITCHOVER,      /* enter the stop stage now */
    TLM_PLAN_CANCEL,          /* give up: the bound cannot be kept */
    TLM_PLAN_POSTCOPY,        /* the guest goes on at the destination now */
} TlmPlanAction;

/*
 * Why; tlm_plan_reason_str() says it to a person.  QAPI's enum
 * MigrationTlmDecision has the same order.
 */
typedef enum {
    TLM_PLAN_REASON_SETUP,
    TLM_PLAN_REASON_PASS,
    TLM_PLAN_REASON_PASS_ENDED,
    TLM_PLAN_REASON_SWITCHOVER_REQUESTED,
    TLM_PLAN_REASON_FITS,
    TLM_PLAN_REASON_LESS_THAN_REDIRTIED,
    TLM_PLAN_REASON_SHRINKS,
    TLM_PLAN_REASON_SETTLED_FIRST,
    TLM_PLAN_REASON_DOES_NOT_SHRINK,
    TLM_PLAN_REASON_PASS_FUTILE,
    TLM_PLAN_REASON_THROTTLED_PASS,
    TLM_PLAN_REASON_THROTTLED,
    TLM_PLAN_REASON_NO_PROGRESS,
    TLM_PLAN_REASON_BOUND_REQUIRES_STOP,
    TLM_PLAN_REASON_BOUND_REQUIRES_THROTTLE,
    TLM_PLAN_REASON_BOUND_OVERRUN,
    TLM_PLAN_REASON_BOUND_DOUBTED,
    TLM_PLAN_REASON_BOUND_OUT_OF_REACH,
    TLM_PLAN_REASON_BOUND_PASSED,
    TLM_PLAN_REASON_DESTINATION_NOT_READY,
    TLM_PLAN_REASON_LINK_DEAD,
    TLM_PLAN_REASON_HELD,
    TLM_PLAN_REASON_PASS_WASTED,
    TLM_PLAN_REASON_TOO_LONG_TO_STOP,
    TLM_PLAN_REASON_BOUND_REQUIRES_POSTCOPY,
    TLM_PLAN_REASON_ESTIMATE, /* of the dry run alone */
    TLM_PLAN_REASON__MAX,
} TlmPlanReason;

const char *tlm_plan_reason_str(TlmPlanReason reason);

/* Set by the user; may change between two samples */
typedef struct TlmPlanParams {
    uint64_t time_bound_ms;      /* total = live + stop; 0: none */
    uint64_t downtime_limit_ms;  /* downtime goal of TLM_PLAN_CONVERGE_AUTO */
    uint64_t max_bandwidth;      /* bytes/s in the live stage; 0: no cap */
    uint64_t switchover_bandwidth; /* bytes/s in stop stage; 0: not known */
    uint64_t postcopy_bandwidth; /* bytes/s in post-copy; 0: no cap */
    uint64_t epoch_ms;           /* fixed epoch length; 0: adaptive */
    TlmPlanConverge converge;
    TlmPlanBoundAction bound_action;
    bool hold;                   /* after the pass, stop only when asked to */
    uint64_t keep_bytes;         /* memory for what is left, of a checkpoint */
} TlmPlanParams;

/* What the coordinator measured; one per epoch, at its end */
typedef struct TlmPlanSample {
    int64_t now_ns;              /* since the start of the migration */
    int64_t epoch_ns;            /* length of the epoch that has just ended */
    int64_t sync_ns;             /* cost of its dirty log sync */
    int64_t idle_ns;             /* part of it that no thread had work */
    uint64_t total_bytes;        /* RAM to be migrated */
    uint64_t unsent_bytes;       /* never sent and clean: mtx's */
    uint64_t dirty_bytes;        /* dirty, to be sent: dtx's (hot included) */
    uint64_t hot_bytes;          /* part of it dirtied not long ago */
    int64_t hot_ns;              /* how long ago at most; 0: about 0.8 s */
    uint64_t dirtied_bytes;      /* found dirty by the last sync */
    uint64_t sent_bytes;         /* on the wire in this epoch, all channels */
    uint64_t sent_pages_bytes;   /* guest RAM covered by them (zero pages) */
    uint64_t zero_bytes;         /* part of it found zero; 0: not counted */
    uint64_t skipped_bytes;      /* zero, not sent; post-copy would do that */
    uint64_t device_bytes;       /* pending outside RAM (VFIO, ...) */
    uint64_t queued_bytes;       /* sent, but not yet acknowledged */
    int64_t held_ns;             /* part of it that max_bandwidth held back */
    uint64_t burst_bytes;        /* arrived while it did not; 0: not known */
    int64_t burst_ns;            /* in this time */
    double guest_speed;          /* vCPU speed in this epoch, 0..1 */
    bool mtx_done;               /* the pass is over */
    bool can_switchover;         /* the destination has acknowledged */
    bool switchover_requested;   /* the user asked to end the live stage */
} TlmPlanSample;

typedef struct TlmPlanDecision {
    TlmPlanAction action;
    double guest_speed;          /* wanted in the next epoch, 0..1; 1: full */
    bool send_hot;               /* dtx sends hot pages too */
    bool send_settled;           /* dtx sends settled pages; if not, it rests */
    uint64_t epoch_ms;           /* length of the next epoch */
    uint64_t settle_ms;          /* the destination may take, before the end */
    /* predictions, for query-migrate; times are 0 while not known */
    uint64_t predicted_total_ms;
    uint64_t predicted_downtime_ms;
    uint64_t eta_ms;             /* from now to the end */
    uint64_t smallest_bound_ms;  /* the smallest total that can be reached */
    int64_t slack_ms;            /* bound - predicted total; 0 without bound */
    bool bound_reachable;        /* false: it is sure that it is not */
    bool capped;                 /* max_bandwidth is what binds */
    bool downtime_reachable;     /* the downtime limit, within the bound */
    double bandwidth;            /* bytes/s, as measured and smoothed */
    double postcopy_bandwidth;   /* bytes/s that post-copy can be counted on */
    double dirty_rate;           /* bytes/s at full guest speed */
    double progress;             /* 0..1, never runs backwards */
    TlmPlanReason reason;
} TlmPlanDecision;

typedef struct TlmPlanner TlmPlanner;

/* Never fails. Free with tlm_planner_free(). */
TlmPlanner *tlm_planner_new(void);
void tlm_planner_free(TlmPlanner *p);

/*
 * Take in @sample and decide.  Called by the coordinator between two
 * epochs, without locks.  Bad input (no time passed, zero bandwidth, a clock
 * that jumps) gives a safe decision: no division by zero, and no switchover
 * into a dead link.  While nothing has been sent for longer than the link has
 * ever needed, the action is CONTINUE.
 */
void tlm_planner_step(TlmPlanner *p, const TlmPlanParams *params,
                      const TlmPlanSample *sample, TlmPlanDecision *decision);

/*
 * In the stop stage, when nothing is left to decide: milliseconds until all
 * bytes have arrived, 0 while that is not known.  In @time (s) the peer has
 * acknowledged @arrived bytes; @left it has not, or they were not even sent.
 * @bandwidth: as measured before (bytes/s).
 */
uint64_t tlm_planner_stop_eta_ms(double bandwidth, double time,
                                 double arrived, double left);

/*
 * Before the start: predict from a measured dirty rate and working set.
 * Only the prediction members of @decision are filled in.
 */
typedef struct TlmPlanEstimate {
    uint64_t total_bytes;        /* RAM to be migrated */
    uint64_t populated_bytes;    /* part of it that is not known to be zero */
    uint64_t working_set_bytes;  /* dirtied within @window_ms */
    uint64_t window_ms;
    uint64_t dirty_rate;         /* bytes/s over the window */
    uint64_t bandwidth;          /* bytes/s of link in stop stage */
    uint64_t device_bytes;
} TlmPlanEstimate;

void tlm_planner_estimate(const TlmPlanParams *params,
                          const TlmPlanEstimate *estimate,
                          TlmPlanDecision *decision);

#endif
