------------------------------- MODULE Amends -------------------------------
(* One transaction, a saga or TCC, between coordinators that share a store by
   leases, and participants behind a guard. The Go model in
   coordinator/internal/model drives the real machines over the same protocol,
   with attempts, timeouts and pivots, which are left out here. *)
EXTENDS Naturals, FiniteSets

CONSTANTS Coordinators, \* their names
          N,            \* number of steps or branches
          Kind,         \* "saga" or "tcc"
          MaxEpoch,     \* so often the shard is taken
          NoEpochCheck, ActBeforeDurable, UndoOnlyDone, NoTombstone \* planted mistakes

Branches == 1..N
None == [dir |-> "none"]
First == IF Kind = "saga" THEN "do" ELSE "try"

VARIABLES row, version,      \* the store: the machine's state, how often it was written
          lease,             \* the store: owner, epoch, whether its time has run out
          late,              \* writes under way that nobody waits for: at most one
          epoch, mem, known, \* of each coordinator: its lease, the transaction, its version
          flight,            \* of each coordinator: its write under way, or its answer
          dirty,             \* of each coordinator: mem is ahead of its last write
          calls, oks, noes,  \* messages that were ever sent: each may arrive at any time, or never
          claim, end, ran,   \* of each branch: the guard's claims, how often it took effect
          acked              \* the client knows that its start is stored
vars == <<row, version, lease, late, epoch, mem, known, flight, dirty, calls, oks, noes, claim, end, ran, acked>>

(* ------------------------------ The machine ------------------------------ *)

Fresh == IF Kind = "saga"
         THEN [dir |-> "onward", at |-> [i \in Branches |-> IF i = 1 THEN "doing" ELSE "pending"]]
         ELSE [dir |-> "open", at |-> [i \in Branches |-> "trying"]]

\* What a state waits for.
Asks(s) == {<<op, i>> \in {"do", "undo", "try", "confirm", "cancel"} \X Branches :
    \/ op = "do" /\ s.dir = "onward" /\ s.at[i] = "doing"
    \/ op = "undo" /\ s.dir = "back" /\ s.at[i] = "undoing"
    \/ op = "try" /\ s.dir = "open" /\ s.at[i] = "trying"
    \/ op = "confirm" /\ s.dir = "commit" /\ s.at[i] = "confirming"
    \/ op = "cancel" /\ s.dir = "cancel" /\ s.at[i] = "cancelling"}

All(s, p) == \A i \in Branches : s.at[i] = p
Committed(s) == (s.dir = "onward" /\ All(s, "done")) \/ (s.dir = "commit" /\ All(s, "confirmed"))
RolledBack(s) == \/ s.dir = "back" /\ \A i \in Branches : s.at[i] \in {"pending", "undone"}
                 \/ s.dir = "cancel" /\ All(s, "cancelled")
Finished(s) == s # None /\ (Committed(s) \/ RolledBack(s))

\* The last of those that are owed an undo is undone next.
Settle(at) == [i \in Branches |->
    IF at[i] = "owed" /\ \A j \in Branches : j > i => at[j] \notin {"owed", "undoing"} THEN "undoing" ELSE at[i]]

TurnBack(s) ==
    IF s.dir = "onward" THEN
        [dir |-> "back", at |-> Settle([i \in Branches |->
            IF s.at[i] = "done" \/ (s.at[i] = "doing" /\ ~UndoOnlyDone) THEN "owed" ELSE "pending"])]
    ELSE [dir |-> "cancel", at |-> [i \in Branches |->
            IF UndoOnlyDone /\ s.at[i] # "tried" THEN "cancelled" ELSE "cancelling"]]

CanTurnBack(s) == s.dir \in {"onward", "open"} /\ ~Finished(s)
CanCommit(s) == s.dir = "open" /\ All(s, "tried")
Commit(s) == [dir |-> "commit", at |-> [i \in Branches |-> "confirming"]]

OK(s, op, i) ==
    CASE op = "do" -> [s EXCEPT !.at = [j \in Branches |->
                          IF j = i THEN "done" ELSE IF j = i + 1 THEN "doing" ELSE s.at[j]]]
      [] op = "undo" -> [s EXCEPT !.at = Settle([s.at EXCEPT ![i] = "undone"])]
      [] op = "try" -> [s EXCEPT !.at[i] = "tried"]
      [] op = "confirm" -> [s EXCEPT !.at[i] = "confirmed"]
      [] op = "cancel" -> [s EXCEPT !.at[i] = "cancelled"]

(* ------------------------------- The store ------------------------------- *)

Write(r) == IF r.epoch = lease.epoch \/ NoEpochCheck
            THEN IF r.version > version THEN row' = r.state /\ version' = r.version ELSE UNCHANGED <<row, version>>
            ELSE UNCHANGED <<row, version>>
Answer(r) == IF r.epoch = lease.epoch \/ NoEpochCheck THEN "written" ELSE "conflict"

Expire == /\ lease.owner # "nobody" /\ ~lease.expired /\ lease.epoch < MaxEpoch
          /\ lease' = [lease EXCEPT !.expired = TRUE]
          /\ UNCHANGED <<row, version, late, epoch, mem, known, flight, dirty, calls, oks, noes, claim, end, ran, acked>>

LateWrite == \E r \in late :
    /\ Write(r) /\ late' = late \ {r}
    /\ UNCHANGED <<lease, epoch, mem, known, flight, dirty, calls, oks, noes, claim, end, ran, acked>>

(* ---------------------------- A coordinator c ---------------------------- *)

Idle == [fate |-> "idle"]
Forget(c) == /\ mem' = [mem EXCEPT ![c] = None] /\ known' = [known EXCEPT ![c] = 0]
             /\ dirty' = [dirty EXCEPT ![c] = FALSE] /\ flight' = [flight EXCEPT ![c] = Idle]
Durable(c) == ~dirty[c] /\ flight[c] = Idle
Held(c) == epoch[c] = lease.epoch /\ lease.owner = c /\ ~lease.expired

Acquire(c) == /\ lease.owner = "nobody" \/ lease.expired
              /\ lease.owner # c \/ epoch[c] # lease.epoch
              /\ lease.epoch < MaxEpoch
              /\ lease' = [owner |-> c, epoch |-> lease.epoch + 1, expired |-> FALSE]
              /\ epoch' = [epoch EXCEPT ![c] = lease.epoch + 1] /\ Forget(c)
              /\ UNCHANGED <<row, version, late, calls, oks, noes, claim, end, ran, acked>>

Renew(c) == /\ lease.owner = c /\ lease.expired /\ epoch[c] = lease.epoch
            /\ lease' = [lease EXCEPT !.expired = FALSE]
            /\ UNCHANGED <<row, version, late, epoch, mem, known, flight, dirty, calls, oks, noes, claim, end, ran, acked>>

Crash(c) == /\ epoch[c] # 0 /\ lease.epoch < MaxEpoch
            /\ late' = IF flight[c].fate = "underway" /\ late = {} THEN {flight[c].request} ELSE late
            /\ epoch' = [epoch EXCEPT ![c] = 0] /\ Forget(c)
            /\ lease' = IF lease.owner = c THEN [lease EXCEPT !.expired = TRUE] ELSE lease
            /\ UNCHANGED <<row, version, calls, oks, noes, claim, end, ran, acked>>

Start(c) == /\ epoch[c] # 0 /\ mem[c] = None /\ row = None
            /\ mem' = [mem EXCEPT ![c] = Fresh] /\ dirty' = [dirty EXCEPT ![c] = TRUE]
            /\ UNCHANGED <<row, version, lease, late, epoch, known, flight, calls, oks, noes, claim, end, ran, acked>>

Load(c) == /\ epoch[c] # 0 /\ mem[c] = None /\ row # None
           /\ mem' = [mem EXCEPT ![c] = row] /\ known' = [known EXCEPT ![c] = version]
           /\ UNCHANGED <<row, version, lease, late, epoch, flight, dirty, calls, oks, noes, claim, end, ran, acked>>

Ask(c) == /\ dirty[c] /\ flight[c] = Idle /\ epoch[c] # 0
          /\ flight' = [flight EXCEPT ![c] = [fate |-> "underway",
                request |-> [state |-> mem[c], version |-> known[c] + 1, epoch |-> epoch[c]]]]
          /\ dirty' = [dirty EXCEPT ![c] = FALSE]
          /\ UNCHANGED <<row, version, lease, late, epoch, mem, known, calls, oks, noes, claim, end, ran, acked>>

Reach(c) == /\ flight[c].fate = "underway"
            /\ Write(flight[c].request)
            /\ flight' = [flight EXCEPT ![c].fate = Answer(flight[c].request)]
            /\ UNCHANGED <<lease, late, epoch, mem, known, dirty, calls, oks, noes, claim, end, ran, acked>>

\* The answer is lost, or does not come in time: the same is asked again.
Repeat(c) == /\ flight[c] # Idle /\ late = {}
             /\ late' = {flight[c].request} /\ flight' = [flight EXCEPT ![c].fate = "underway"]
             /\ UNCHANGED <<row, version, lease, epoch, mem, known, dirty, calls, oks, noes, claim, end, ran, acked>>

Hear(c) == \/ /\ flight[c].fate = "written"
              /\ known' = [known EXCEPT ![c] = flight[c].request.version]
              /\ flight' = [flight EXCEPT ![c] = Idle] /\ acked' = TRUE
              /\ UNCHANGED <<row, version, lease, late, epoch, mem, dirty, calls, oks, noes, claim, end, ran>>
           \/ /\ flight[c].fate = "conflict"
              /\ epoch' = [epoch EXCEPT ![c] = 0] /\ Forget(c)
              /\ UNCHANGED <<row, version, lease, late, calls, oks, noes, claim, end, ran, acked>>

Send(c) == /\ mem[c] # None /\ Held(c) /\ (Durable(c) \/ ActBeforeDurable)
           /\ calls' = calls \union Asks(mem[c])
           /\ UNCHANGED <<row, version, lease, late, epoch, mem, known, flight, dirty, oks, noes, claim, end, ran, acked>>

Become(c, s) == /\ mem' = [mem EXCEPT ![c] = s] /\ dirty' = [dirty EXCEPT ![c] = TRUE]
                /\ UNCHANGED <<row, version, lease, late, epoch, known, flight, calls, oks, noes, claim, end, ran, acked>>

Learn(c) == /\ mem[c] # None
            /\ \/ \E m \in oks \cap Asks(mem[c]) : Become(c, OK(mem[c], m[1], m[2]))
               \/ noes \cap Asks(mem[c]) # {} /\ CanTurnBack(mem[c]) /\ Become(c, TurnBack(mem[c]))
               \/ CanTurnBack(mem[c]) /\ Become(c, TurnBack(mem[c])) \* a deadline, or somebody asks for it
               \/ CanCommit(mem[c]) /\ Become(c, Commit(mem[c]))

(* -------------- A participant, in one transaction of its own -------------- *)

Arrive == \E m \in calls : LET op == m[1] i == m[2] IN
    /\ \/ op = First /\ claim[i] = "tomb" /\ noes' = noes \union {m} /\ UNCHANGED <<oks, claim, end, ran>>
       \/ op = First /\ claim[i] = "done" /\ oks' = oks \union {m} /\ UNCHANGED <<noes, claim, end, ran>>
       \/ op = First /\ claim[i] = "none" /\ noes' = noes \union {m} /\ UNCHANGED <<oks, claim, end, ran>>
       \/ /\ op = First /\ claim[i] = "none" /\ oks' = oks \union {m}
          /\ claim' = [claim EXCEPT ![i] = "done"] /\ ran' = [ran EXCEPT ![i] = @ + 1] /\ UNCHANGED <<noes, end>>
       \/ /\ op \in {"undo", "cancel"} /\ claim[i] = "none" /\ oks' = oks \union {m}
          /\ claim' = [claim EXCEPT ![i] = IF NoTombstone THEN "none" ELSE "tomb"] /\ UNCHANGED <<noes, end, ran>>
       \/ op \in {"undo", "cancel"} /\ claim[i] = "tomb" /\ oks' = oks \union {m} /\ UNCHANGED <<noes, claim, end, ran>>
       \/ op = "confirm" /\ claim[i] # "done" /\ noes' = noes \union {m} /\ UNCHANGED <<oks, claim, end, ran>>
       \/ /\ op # First /\ claim[i] = "done" /\ end[i] \in {"none", op} /\ oks' = oks \union {m}
          /\ end' = [end EXCEPT ![i] = op] /\ UNCHANGED <<noes, claim, ran>>
       \/ op # First /\ claim[i] = "done" /\ end[i] \notin {"none", op}
          /\ noes' = noes \union {m} /\ UNCHANGED <<oks, claim, end, ran>>
    /\ UNCHANGED <<row, version, lease, late, epoch, mem, known, flight, dirty, calls, acked>>

(* ------------------------------ The promises ------------------------------ *)

Stands(i) == ran[i] > 0 /\ end[i] \notin {"undo", "cancel"}
Once == \A i \in Branches : ran[i] <= 1
StartKept == acked => row # None
AllOrNothing == row # None =>
    /\ Committed(row) => \A i \in Branches : Stands(i) /\ (Kind = "tcc" => end[i] = "confirm")
    /\ RolledBack(row) => \A i \in Branches : ~Stands(i)
InOrder == Kind = "saga" => \A i \in Branches : i > 1 /\ Stands(i) => Stands(i - 1)

Init == /\ row = None /\ version = 0 /\ late = {} /\ acked = FALSE
        /\ lease = [owner |-> "nobody", epoch |-> 0, expired |-> FALSE]
        /\ epoch = [c \in Coordinators |-> 0] /\ mem = [c \in Coordinators |-> None]
        /\ known = [c \in Coordinators |-> 0] /\ flight = [c \in Coordinators |-> Idle]
        /\ dirty = [c \in Coordinators |-> FALSE]
        /\ calls = {} /\ oks = {} /\ noes = {}
        /\ claim = [i \in Branches |-> "none"] /\ end = [i \in Branches |-> "none"] /\ ran = [i \in Branches |-> 0]

Next == \/ Expire \/ LateWrite \/ Arrive
        \/ \E c \in Coordinators :
              \/ Acquire(c) \/ Renew(c) \/ Crash(c) \/ Start(c) \/ Load(c) \/ Ask(c)
              \/ Reach(c) \/ Repeat(c) \/ Hear(c) \/ Send(c) \/ Learn(c)

Spec == Init /\ [][Next]_vars
=============================================================================
