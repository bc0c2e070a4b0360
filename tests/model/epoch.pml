/*
 * Model of the epoch protocol: migration/tlm/engine, and what it stands on
 *
 * One page is one chunk of the dirty log.  A guest writes to RAM at any time
 * while it runs.  The coordinator makes epochs out of sync, arm, run and flush;
 * mtx and dtx take pages; lanes read RAM when they like, and keep the order of
 * what they carry; the destination takes from any lane, and waits at a SYNC for
 * the others.  The user may cancel, a lane may break, the network may stand
 * still until the user cancels.  A run is a migration or a checkpoint.
 *
 * Asserted: rules 1 and 4 of migration/tlm/README.md; that a completed
 * run has each page as it was when the guest stopped; that the guest runs on
 * exactly one side; and, by spin, that nothing waits for ever.
 *
 * Each switch to break takes one rule away.  The test fails if spin finds no
 * error then.
 *
 * Not here: the pacer, hot pages (which page goes next is policy), hints that
 * pages are free, several pages in a batch or chunk.  A write is one step: KVM
 * marks a page before the write, and write-protects it again before CLEAR
 * returns, so a write in between faults again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PAGES
#define PAGES 2
#endif
#ifndef LANES
#define LANES 2
#endif
#ifndef WRITES
#define WRITES 2                /* by the guest, in all */
#endif
#ifndef EPOCHS
#define EPOCHS 2                /* of the live stage, at most */
#endif
#define MTX 0
#define DTX 1
#define NO_PAGE 7

mtype = { PAGE, SYNC };

/* RAM: how often a page was written; 0: it reads as zero */
byte ram[PAGES], destination[PAGES], in_pause[PAGES], copies[PAGES];
bool copied[PAGES];             /* what was owed in the pause */
byte writes;
bool running = true, destination_runs;

/* The dirty log of the kernel, and what the last sync has read of it */
bool logged[PAGES], protected[PAGES], reported[PAGES];

/* The ledger */
bool dirty[PAGES], unsent[PAGES], carried[PAGES], armed[PAGES];
byte owed;                      /* as counted */
byte in_flight[PAGES];          /* since the last flush */
byte walk, sweep;               /* cursors */

/* The engine */
bool over, quit, failed, cancelled, rest, asleep[2];
bool send_dirty;                /* this epoch's: does dtx have work? */
byte epoch, busy, joined;

/* The lanes */
byte job[LANES] = NO_PAGE;
bool wants_sync[LANES], broken[LANES], at_barrier[LANES], lanes_quit;
chan wire[LANES] = [1] of { mtype, byte, byte };
bool stalled, ended;
byte lanes_joined;

#define interrupted (failed || cancelled)

inline broadcast_wake()
{
    asleep[MTX] = false;
    asleep[DTX] = false
}

inline take(p)
{
    unsent[p] = false;
#ifndef BREAK_TAKEN_STAYS
    dirty[p] = false;
#endif
    owed--;
    in_flight[p]++;
    /* Rule 1 */
    assert(in_flight[p] == 1);
    page = p
}

/* As in pick.c; sets page.  The ram lock makes it one step. */
inline pick_walk()
{
    do
    :: page != NO_PAGE || walk == PAGES -> break
#ifndef BREAK_WALK_UNARMED
    :: page == NO_PAGE && walk < PAGES && !armed[walk] -> break
#endif
    :: else ->
        if
        :: unsent[walk] && !dirty[walk] -> take(walk)
        :: else
        fi;
        walk++
    od
}

inline pick_sweep()
{
    do
    :: page != NO_PAGE || sweep == PAGES -> break
    :: else ->
        if
        :: dirty[sweep] || (rest && unsent[sweep]) -> take(sweep)
        :: else
        fi;
        sweep++
    od
}

proctype worker(byte me)
{
    byte mine = 0, page = NO_PAGE;

    do
    :: atomic {
           /* under the engine's lock */
           if
           :: quit -> break
           :: !quit && mine == epoch -> asleep[me] = true
           :: else -> mine = epoch; goto work
           fi
       };
       !asleep[me];
       goto next;
work:
       do
       :: atomic {
              if
              :: over -> break
              :: else
              fi;
              page = NO_PAGE;
              if
              :: rest -> pick_sweep()
              :: !rest && me == MTX ->
                  pick_walk();
                  if
                  :: page == NO_PAGE && send_dirty -> pick_sweep()
                  :: else
                  fi
              :: else ->
                  if
                  :: send_dirty -> pick_sweep()
                  :: else
                  fi;
                  pick_walk()
              fi;
              if
              :: page == NO_PAGE -> break
              :: else
              fi
          };
          /* send(): waits for a lane */
          atomic {
              if
              :: cancelled || broken[0] ->
                  failed = true; over = true; broadcast_wake(); break
              :: job[0] == NO_PAGE -> job[0] = page
              :: job[1] == NO_PAGE -> job[1] = page
              fi;
              page = NO_PAGE
          }
       od;
       busy--;
next:
       skip
    od;
    joined++
}

proctype lane(byte me)
{
    byte value, page;

    do
    :: atomic {
           job[me] != NO_PAGE ->
           page = job[me];
           if
           :: copied[page] -> value = copies[page]
           :: else -> value = ram[page]
           fi
       };
       if
       :: wire[me]!PAGE(page, value)
       :: cancelled || broken[me] -> break
       fi;
       atomic { page = 0; value = 0; job[me] = NO_PAGE }
    :: atomic { wants_sync[me] && job[me] == NO_PAGE };
       if
       :: wire[me]!SYNC(0, 0)
       :: cancelled || broken[me] -> break
       fi;
       wants_sync[me] = false
    :: cancelled || broken[me] || lanes_quit -> break
    od;
    lanes_joined++
}

proctype receiver()
{
    byte p, value;

end:
    do
    :: atomic {
           !stalled && !at_barrier[0] && wire[0]?[PAGE, _, _] ->
           wire[0]?PAGE(p, value); destination[p] = value; p = 0; value = 0
       }
    :: atomic {
           !stalled && !at_barrier[1] && wire[1]?[PAGE, _, _] ->
           wire[1]?PAGE(p, value); destination[p] = value; p = 0; value = 0
       }
    :: atomic {
           !stalled && !at_barrier[0] && wire[0]?[SYNC, _, _] ->
           wire[0]?SYNC(_, _); at_barrier[0] = true
       }
    :: atomic {
           !stalled && !at_barrier[1] && wire[1]?[SYNC, _, _] ->
           wire[1]?SYNC(_, _); at_barrier[1] = true
       }
    :: atomic {
           at_barrier[0] && at_barrier[1] ->
           at_barrier[0] = false; at_barrier[1] = false
       }
    od
}

proctype guest()
{
    byte p;

end:
    do
    :: atomic {
           running && writes < WRITES ->
           select(p : 0 .. PAGES - 1);
           writes++;
           ram[p]++;
           if
           :: protected[p] -> logged[p] = true; protected[p] = false
           :: else
           fi
       }
    od
}

/* One misfortune in a run, at any time */
#ifdef STALL
proctype user()
{
    /* The network stands still, or not, until the user cancels */
    stalled = true;
    atomic { cancelled = true; over = true; broadcast_wake() }
}
#endif
#ifdef BROKEN_LANE
proctype user()
{
    broken[0] = true
}
#endif

inline sync_log()
{
    atomic {
        /* Rule 4: taken_at_most_once() */
        assert(owed == (dirty[0] || unsent[0]) + (dirty[1] || unsent[1]));
        i = 0;
        do
        :: i == PAGES -> break
        :: else -> carried[i] = dirty[i]; dirty[i] = false; i++
        od
    };
    atomic {
        i = 0;
        do
        :: i == PAGES -> break
        :: else -> reported[i] = logged[i]; i++
        od
    };
    atomic {
        i = 0;
        owed = 0;
        do
        :: i == PAGES -> break
        :: else ->
            /* Rule 3: a page that was never armed tells nothing new */
#ifdef BREAK_WALK_UNARMED
            dirty[i] = reported[i] && armed[i];
#else
            dirty[i] = reported[i] &&
                       (armed[i] || carried[i] || !unsent[i]);
#endif
#ifndef BREAK_SYNC_DROPS
            dirty[i] = dirty[i] || carried[i];
#endif
            carried[i] = false;
            owed = owed + (dirty[i] || unsent[i]);
            i++
        od;
        i = 0
    }
}

/* clear_log() of one chunk clears what the last sync has reported */
inline clear_log(p)
{
    logged[p] = logged[p] && !reported[p];
    protected[p] = true;
    reported[p] = false
}

/* It reads as zero, and so need not be sent (rule 5) */
inline look_for_zero(p)
{
    if
    :: ram[p] == 0 -> zero = true
    :: else -> zero = false
    fi
}

inline arm_log()
{
    atomic { budget = true; i = 0 };
    do
    :: i == PAGES -> break
    :: else ->
#ifdef BREAK_FORGET_EARLY
        look_for_zero(i);
#endif
        atomic {
            first = false;
            if
#ifdef BREAK_READ_BEFORE_ARM
            /* Another page of the chunk is still dirty */
            :: reported[i] || (!armed[i] && (rest || budget)) ->
#else
            :: dirty[i] || (!armed[i] && (rest || budget)) ->
#endif
                first = !armed[i];
                clear_log(i);
                armed[i] = true
            :: else
            fi
        };
        if
        :: first ->
#ifndef BREAK_FORGET_EARLY
            look_for_zero(i);
#endif
            atomic {
                /* tlm_ledger_forget_clean() */
                if
                :: zero && unsent[i] && !dirty[i] -> unsent[i] = false; owed--
                :: else
                fi;
                zero = false;
                /* One chunk ahead of mtx at least */
                if
                :: budget = false
                :: skip
                fi
            }
        :: else
        fi;
        atomic { first = false; i++ }
    od;
    atomic { i = 0; budget = false }
}

inline run_epoch()
{
    atomic {
        sweep = 0;
        epoch++;
        over = interrupted;
        busy = 2;
        if
        :: send_dirty = true
        :: send_dirty = false
        fi;
        broadcast_wake()
    };
    do
    :: atomic { busy == 0 -> send_dirty = false; break }
    /* The epoch's time is over, or somebody wants the coordinator */
    :: atomic {
           busy && !over && (!rest || interrupted) -> over = true;
           broadcast_wake()
       }
    od
}

/* Waits until each lane has sent its SYNC, or one is broken */
inline flush()
{
#ifndef BREAK_NO_FLUSH
    atomic {
        if
        :: !cancelled && !broken[0] ->
            wants_sync[0] = true; wants_sync[1] = true
        :: else
        fi
    };
    (!wants_sync[0] && !wants_sync[1]) || cancelled || broken[0];
    atomic {
#ifndef BREAK_ERROR_IGNORED
        failed = failed || broken[0];
#endif
        in_flight[0] = 0; in_flight[1] = 0
    }
#else
    skip
#endif
}

#ifdef BREAK_READ_BEFORE_ARM
#define ARM_THEN_RUN() run_epoch(); arm_log()
#else
#define ARM_THEN_RUN() arm_log(); run_epoch()
#endif

init
{
    byte i, rounds;
    bool budget, first, zero, checkpoint, done;

    atomic {
        ram[0] = 1;             /* the others read as zero */
        /* The log may report all pages until it is first cleared */
        if
        :: logged[0] = true; logged[1] = true
        :: protected[0] = true; protected[1] = true
        fi;
#ifdef CHECKPOINT
        checkpoint = true;
#endif
        unsent[0] = true; unsent[1] = true;
        owed = PAGES;
        run guest();
#if defined(STALL) || defined(BROKEN_LANE)
        run user();
#endif
        run receiver();
        run lane(0);
        run lane(1);
        run worker(MTX);
        run worker(DTX)
    };

    /* The live stage */
    do
    :: sync_log();
       ARM_THEN_RUN();
       flush();
       rounds++;
       if
       :: interrupted -> goto end_of_run
       :: !interrupted && rounds < EPOCHS
       :: !interrupted -> break
       fi
    od;
    rounds = 0;

    /* The guest stops */
    atomic {
        running = false;
        rest = true;
        in_pause[0] = ram[0]; in_pause[1] = ram[1]
    };
#ifndef BREAK_NO_LAST_SYNC
    sync_log();
#endif
    if
    :: checkpoint ->
        arm_log();
        atomic {
            copies[0] = ram[0]; copies[1] = ram[1];
#ifndef BREAK_READ_RUNNING_GUEST
            copied[0] = dirty[0] || unsent[0];
            copied[1] = dirty[1] || unsent[1];
#endif
            running = true
        };
#ifdef BREAK_SYNC_IN_FLUSH
        sync_log();
#endif
        run_epoch()
    :: else ->
        arm_log();
        run_epoch()
    fi;
    /* Rule 12: what is owed was of the pause, and has been taken */
    flush();
    if
    :: !interrupted ->
        assert(owed == 0);
        /* The destination has seen the end of RAM, or never will */
        if
        :: empty(wire[0]) && empty(wire[1]) && !at_barrier[0] &&
           !at_barrier[1] && !broken[0] && !cancelled ->
            done = true
#ifdef BREAK_ERROR_IGNORED
        :: broken[0] -> done = true
#endif
        :: broken[0] || cancelled
        fi
    :: else
    fi;

end_of_run:
    atomic {
        if
        :: done ->
            assert(destination[0] == in_pause[0]);
            assert(destination[1] == in_pause[1]);
            destination_runs = !checkpoint
        :: !done && !running -> running = true
        :: else
        fi;
        /* The guest runs on exactly one side */
        assert(running != destination_runs)
    };

    /* The end joins all threads */
    atomic {
        quit = true;
#ifndef BREAK_QUIT_UNTOLD
        broadcast_wake();
#endif
        lanes_quit = true
    };
    joined == 2;
    lanes_joined == LANES
}
