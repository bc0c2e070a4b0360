/*
 * Model of a coordinated checkpoint: one of each VM of a set, of one moment
 *
 * A member: live stage until it is ready (hold); cut: the guest stops and waits
 * at the gate; release: RAM is kept, the guest goes on, what was kept goes out;
 * complete.  Cancel ends each of these, and so does the gate's time-out; then
 * the guest goes on.  Coordinator: all ready, cut, all stopped, release, all
 * complete, commit; cancels all if anything fails or takes too long.  It may
 * crash at any step; its successor cancels all, and tries once more or not.
 *
 * Asserted: in a committed set no guest ran between the first and the last
 * stop; every member of it is complete, and of the same attempt.  By spin: no
 * guest stays stopped, nobody waits for ever.
 *
 * With BUFFER a guest goes on as soon as it has been saved, and its packets are
 * held: from the cut until the release, or until the filter's own tick.  Then
 * "torn" is that packets go out before all guests have stopped.  The tick comes
 * at any time; the coordinator knows by its clock whether one may have come.
 *
 * With SERVERS each member sends to a memory server, which stores what came and
 * then says so; the answer may be lost.  So a server may store what the
 * coordinator has given up.  Whoever gives an attempt up, or comes after a
 * crash, clears: it ends what is coming, and removes what is there.  At the end
 * nothing is left of a set that was given up, and all of one that counts is.
 *
 * Time is not here: each time-out may happen at any time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define VMS 2
#define ATTEMPTS 2

mtype = { IDLE, LIVE, READY, CUT, GATE, FLUSH, COMPLETE, FAILED, DEAD };

mtype state[VMS] = IDLE;
bool died;                      /* one of them: one at most does */
byte attempt_of[VMS];           /* of which attempt is what it does? */
bool stopped[VMS];
bool held[VMS];                 /* its packets */
bool ticked;                    /* a filter may have let packets out */
byte whole[VMS];               /* of which attempt its file is, complete */
#ifdef SERVERS
byte coming[VMS];               /* of which attempt a server has got all */
bool cleared;                   /* the coordinator, or another, has seen to it */
#endif
/* Of this attempt */
byte was_stopped;
bool torn;                      /* one went on before all were stopped */
/* On the coordinator's disk */
byte listed;                    /* members that the manifest names */
bool manifest;                  /* the set counts */
byte attempt;

#ifdef CRASHES
#define CRASH if :: skip :: goto crash fi
#else
#define CRASH skip
#endif

inline go_on(i)
{
    torn = torn || was_stopped < VMS;
    stopped[i] = false
}

inline let_out(i)
{
    if
    :: held[i] ->
        torn = torn || was_stopped < VMS;
        held[i] = false
    :: else
    fi
}

/* What QEMU does by itself */
proctype vm(byte me)
{
end:
    do
    :: atomic { state[me] == LIVE -> state[me] = READY }
    :: atomic {
           state[me] == CUT ->
#ifdef BUFFER
           /* Stops, is saved, goes on */
           state[me] = FLUSH;
#else
           state[me] = GATE;
           stopped[me] = true;
#endif
           was_stopped++
       }
#ifdef BUFFER
    :: atomic { held[me] -> ticked = true; let_out(me) }
#endif
#ifdef SERVERS
    :: atomic {
           state[me] == FLUSH && coming[me] != attempt_of[me] &&
           whole[me] != attempt_of[me] ->
           coming[me] = attempt_of[me]
       }
#else
    :: atomic {
           state[me] == FLUSH -> state[me] = COMPLETE;
           whole[me] = attempt_of[me]
       }
#endif
#ifdef FAILURES
    :: atomic { state[me] == FLUSH || state[me] == LIVE -> state[me] = FAILED }
    /* With its host.  A dead VM does not run, but its file may be whole. */
    :: atomic {
           !died && state[me] != IDLE ->
           died = true;
           stopped[me] = false;
           held[me] = false;
           state[me] = DEAD
       }
#endif
#ifndef BREAK_GATE_FOR_EVER
    /* gate-timeout */
    :: atomic { state[me] == GATE -> state[me] = FAILED; go_on(me) }
#endif
    od
}

#ifdef SERVERS
proctype server(byte me)
{
end:
    do
    :: atomic {
           coming[me] ->
           whole[me] = coming[me];
           coming[me] = 0;
           if
           :: state[me] == FLUSH && attempt_of[me] == whole[me] ->
               state[me] = COMPLETE
#ifdef FAILURES
           :: state[me] == FLUSH -> state[me] = FAILED
#endif
           :: state[me] != FLUSH
           fi
       }
    od
}
#endif

/* Answers of a member to the coordinator: refused if it is too late */
inline start(i)
{
    if
    :: state[i] == IDLE || state[i] == FAILED || state[i] == COMPLETE ->
        state[i] = LIVE;
        attempt_of[i] = attempt
    :: else
    fi
}

inline cut(i)
{
    if
    :: state[i] == READY && attempt_of[i] == attempt ->
#ifdef BUFFER
        held[i] = true;
#endif
        state[i] = CUT
    :: else
    fi
}

inline release(i)
{
#ifdef BUFFER
    let_out(i)
#else
    if
    :: state[i] == GATE && attempt_of[i] == attempt ->
        state[i] = FLUSH;
        go_on(i)
    :: else
    fi
#endif
}

inline cancel(i)
{
    let_out(i);
    if
    :: state[i] == GATE -> state[i] = FAILED; go_on(i)
    :: state[i] == LIVE || state[i] == READY || state[i] == CUT ||
       state[i] == FLUSH ->
        state[i] = FAILED
    :: else
    fi
}

/* Nothing is left at its server, and nothing comes any more */
inline clear(i)
{
#ifdef SERVERS
#ifndef BREAK_SESSION_GOES_ON
    coming[i] = 0;
#endif
    whole[i] = 0
#else
    skip
#endif
}

inline all_cleared()
{
#ifdef SERVERS
    cleared = true
#else
    skip
#endif
}

#define FOR_ALL(action) \
    n = 0; \
    do \
    :: n == VMS -> break \
    :: else -> atomic { action(n); n++ }; CRASH \
    od

#define here(i, s) (state[i] == s && attempt_of[i] == attempt)
#define all(s) (here(0, s) && here(1, s))
#define one(s) (here(0, s) || here(1, s))
#define has_stopped(i) (here(i, FLUSH) || here(i, COMPLETE))
#define lost (one(FAILED) || one(DEAD))


/* Waits for all of them; abort on a failure, or when it takes too long */
inline wait_for(s)
{
    if
    :: all(s)
    :: lost -> goto abort
    :: goto abort
    fi;
    CRASH
}

proctype coordinator()
{
    byte n;

begin:
    atomic {
        attempt++;
        was_stopped = 0;
        torn = false;
        listed = 0;
#ifdef SERVERS
        cleared = false;
#endif
        ticked = false
    };
    FOR_ALL(start);
    wait_for(READY);
#ifdef BREAK_RESUME_EARLY
    n = 0;
    do
    :: n == VMS -> break
    :: else ->
        atomic { cut(n) };
        here(n, GATE) || lost;
        atomic { release(n); n++ }
    od;
#else
    FOR_ALL(cut);
#ifdef BUFFER
#ifndef BREAK_LET_OUT_EARLY
    if
    :: has_stopped(0) && has_stopped(1)
    :: lost -> goto abort
    :: goto abort
    fi;
#endif
#ifndef BREAK_TICK_IGNORED
    if
    :: ticked -> goto abort
    :: else
    fi;
#endif
    CRASH;
#elif !defined(BREAK_NO_BARRIER)
    wait_for(GATE);
#endif
    FOR_ALL(release);
#endif
#ifdef BREAK_COMMIT_EARLY
    wait_for(FLUSH);
#elif !defined(BREAK_REFUSAL_IGNORED)
    wait_for(COMPLETE);
#else
    /* Those that are done: whoever has refused the release is not asked */
    state[0] == COMPLETE || state[0] == FAILED || state[0] == DEAD;
    state[1] == COMPLETE || state[1] == FAILED || state[1] == DEAD;
#endif
    /* Commit: the manifest is written beside, and renamed */
    n = 0;
#ifdef BREAK_WRITTEN_IN_PLACE
    manifest = true;
#endif
    do
    :: n == VMS -> break
    :: else -> atomic { listed++; n++ }; CRASH
    od;
    manifest = true;
    CRASH;
    goto finish;

abort:
#ifdef BREAK_CLEARED_BEFORE_CANCEL
    FOR_ALL(clear);
    FOR_ALL(cancel);
#else
    FOR_ALL(cancel);
    FOR_ALL(clear);
#endif
    all_cleared();
    goto again;

crash:
    atomic { n = 0 };
    /* A successor comes, or not.  A set without a manifest does not count. */
    if
#ifndef BREAK_COMMITTED_CLEARED
    :: !manifest ->
#else
    :: true ->
#endif
        do
        :: n == VMS -> break
        :: else -> atomic { cancel(n); clear(n); n++ }
        od;
        all_cleared()
    :: goto finish
    fi;
again:
    if
    :: attempt < ATTEMPTS && !manifest -> n = 0; goto begin
    :: skip
    fi;
finish:
    n = 0
}

/* Somebody restores what counts, at any time */
proctype restorer()
{
end:
    atomic {
        manifest ->
        assert(listed == VMS);
        assert(!torn);
        assert(was_stopped == VMS);
        assert(whole[0] == attempt && whole[1] == attempt)
    }
}

/* When nothing more can happen */
proctype at_end()
{
end:
    timeout -> assert(!stopped[0] && !stopped[1]);
#ifdef SERVERS
    assert(!cleared || manifest || !(whole[0] || whole[1]))
#endif
}

init
{
    atomic {
        run vm(0);
        run vm(1);
#ifdef SERVERS
        run server(0);
        run server(1);
#endif
        run coordinator();
        run restorer();
        run at_end()
    }
}
