/*
 * Model of a chain of incremental checkpoints: the dirty log stays on from one
 * to the next, and each sends only what was written since its parent's pause
 *
 * A checkpoint: the first sync takes in what was written since the last pause;
 * live epochs, each sync, arm, send; the pause: sync, arm, keep; the guest goes
 * on; what is kept is written; it succeeds or fails, at any step.  Between two,
 * somebody else may use the dirty log (a migration, a dirty rate): that breaks
 * the chain, and the next one is full.
 *
 * Asserted: a checkpoint that succeeds, put on its parents, has each page as it
 * was in its pause.
 *
 * The engine itself is in epoch.pml; sending is one step here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define PAGES 2
#ifndef WRITES
#define WRITES 4
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 3
#endif

byte ram[PAGES], in_pause[PAGES];
byte file[PAGES];               /* the newest good one, on its parents */
byte child[PAGES];              /* the pages of the one under way */
bool has[PAGES];
byte writes;

bool logged[PAGES], protected[PAGES], reported[PAGES];
bool owed[PAGES];
bool set[PAGES];                /* all that is of this generation */
bool kept[PAGES];               /* of a failed one, for the next */
bool parent;                    /* is there one to build on? */

proctype guest()
{
    byte p;

end:
    do
    :: atomic {
           writes < WRITES ->
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

#define EACH_PAGE(action) \
    i = 0; \
    do \
    :: i == PAGES -> break \
    :: else -> action; i++ \
    od; \
    i = 0

inline read_log()
{
    atomic {
        EACH_PAGE(
            reported[i] = logged[i];
            owed[i] = owed[i] || logged[i];
            set[i] = set[i] || logged[i])
    }
}

inline arm_log()
{
    atomic {
        EACH_PAGE(
            if
            :: owed[i] ->
                logged[i] = logged[i] && !reported[i];
                protected[i] = true;
                reported[i] = false
            :: else
            fi)
    }
}

/* Some of what is owed, or all of it */
inline send(all, copied)
{
    i = 0;
    do
    :: i == PAGES -> break
    :: else ->
        atomic {
            if
            :: owed[i] ->
                child[i] = (copied -> copy[i] : ram[i]);
                has[i] = true;
                owed[i] = false
            :: !all || !owed[i]
            fi;
            i++
        }
    od;
    i = 0
}

init
{
    byte i, made;
    byte copy[PAGES];

    atomic { ram[0] = 1; run guest() };
    do
    :: made == CHECKPOINTS -> break
    :: made < CHECKPOINTS ->
        made++;
        atomic {
            EACH_PAGE(
                has[i] = false;
#ifndef BREAK_FAILED_FORGOTTEN
                owed[i] = kept[i] || !parent;
#else
                owed[i] = !parent;
#endif
                set[i] = owed[i];
                if
                :: !parent -> logged[i] = false; protected[i] = true
                :: else
                fi)
        };

        /* The live stage */
        read_log();
        arm_log();
        if
        :: goto failed
        :: skip
        fi;
        send(false, false);
        if
        :: goto failed
        :: skip
        fi;

        /* The pause */
        atomic {
            EACH_PAGE(in_pause[i] = ram[i]; copy[i] = ram[i]);
            read_log();
#ifndef BREAK_ARM_AFTER_PAUSE
            arm_log()
#endif
        };
#ifdef BREAK_ARM_AFTER_PAUSE
        arm_log();
#endif
        if
        :: goto failed
        :: skip
        fi;
        send(true, true);
        if
        :: goto failed
        :: skip
        fi;

        atomic {
            EACH_PAGE(
                if
                :: has[i] -> file[i] = child[i]
                :: else
                fi;
                assert(file[i] == in_pause[i]);
                kept[i] = false);
            parent = true
        };
        goto between;

failed:
        /* The file of this generation is gone, the newest good one stays */
        atomic {
            EACH_PAGE(
#ifdef BREAK_ONLY_UNSENT_KEPT
                kept[i] = owed[i];
#else
                kept[i] = set[i];
#endif
                owed[i] = false)
        };

between:
        /* Another user of the log takes what it reports */
        if
        :: skip
        :: atomic {
               EACH_PAGE(logged[i] = false; protected[i] = true);
#ifndef BREAK_OTHER_USER_UNSEEN
               parent = false
#endif
           }
        fi
    od
}
