------------------------------- MODULE Outbox -------------------------------
(* One partition of an outbox: messages of one key, relays that own it by a
   lease, a log that may take a message twice, and a consumer with an inbox.
   Writers of the key wait for each other, so ids are in the order of commits. *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS Relays, M,   \* relays, number of messages
          MaxEpoch, MaxLog,
          DeleteBeforeAck, MarkBeforePublish, OffsetBeforeWork \* planted mistakes

Messages == 1..M
VARIABLES committed, deleted, \* the table: messages up to committed are written, those in deleted gone
          lease, noted,       \* the owner; what is noted to be in the log
          epoch, sent, acked, \* of each relay: its lease, what it waits for (0: nothing), what it knows to be in the log
          late,               \* messages on their way that nobody waits for
          log, at, offset, claims, effects \* the log; the consumer
vars == <<committed, deleted, lease, noted, epoch, sent, acked, late, log, at, offset, claims, effects>>

InLog(m) == \E k \in 1..Len(log) : log[k] = m
Held(r) == lease.owner = r /\ epoch[r] = lease.epoch /\ ~lease.expired

Commit == /\ committed < M /\ committed' = committed + 1
          /\ UNCHANGED <<deleted, lease, noted, epoch, sent, acked, late, log, at, offset, claims, effects>>

Expire == /\ lease.owner # "nobody" /\ ~lease.expired /\ lease.epoch < MaxEpoch /\ lease' = [lease EXCEPT !.expired = TRUE]
          /\ UNCHANGED <<committed, deleted, noted, epoch, sent, acked, late, log, at, offset, claims, effects>>

Acquire(r) == /\ lease.owner = "nobody" \/ lease.expired
              /\ lease.epoch < MaxEpoch /\ sent[r] = 0
              /\ lease' = [owner |-> r, epoch |-> lease.epoch + 1, expired |-> FALSE]
              /\ epoch' = [epoch EXCEPT ![r] = lease.epoch + 1]
              /\ acked' = [acked EXCEPT ![r] = noted]
              /\ UNCHANGED <<committed, deleted, noted, sent, late, log, at, offset, claims, effects>>

Crash(r) == /\ epoch[r] # 0 /\ lease.epoch < MaxEpoch
            /\ late' = IF sent[r] # 0 THEN late \union {sent[r]} ELSE late
            /\ epoch' = [epoch EXCEPT ![r] = 0] /\ sent' = [sent EXCEPT ![r] = 0] /\ acked' = [acked EXCEPT ![r] = {}]
            /\ lease' = IF lease.owner = r THEN [lease EXCEPT !.expired = TRUE] ELSE lease
            /\ UNCHANGED <<committed, deleted, noted, log, at, offset, claims, effects>>

\* The first row that is there and not known to be in the log.
Send(r) == /\ Held(r) /\ sent[r] = 0
           /\ \E m \in 1..committed :
                /\ m \notin deleted \union acked[r]
                /\ \A n \in 1..(m - 1) : n \in deleted \union acked[r]
                /\ sent' = [sent EXCEPT ![r] = m]
                /\ deleted' = IF DeleteBeforeAck THEN deleted \union {m} ELSE deleted
                /\ noted' = IF MarkBeforePublish THEN noted \union {m} ELSE noted
           /\ UNCHANGED <<committed, lease, epoch, acked, late, log, at, offset, claims, effects>>

Arrive == /\ Len(log) < MaxLog
          /\ \/ \E r \in Relays : /\ sent[r] # 0 /\ log' = Append(log, sent[r])
                                  /\ acked' = [acked EXCEPT ![r] = @ \union {sent[r]}] /\ sent' = [sent EXCEPT ![r] = 0]
                                  /\ UNCHANGED late
             \/ \E r \in Relays : /\ sent[r] # 0 /\ log' = Append(log, sent[r]) \* the answer is lost
                                  /\ sent' = [sent EXCEPT ![r] = 0] /\ UNCHANGED <<acked, late>>
             \/ \E m \in late : log' = Append(log, m) /\ late' = late \ {m} /\ UNCHANGED <<acked, sent>>
          /\ UNCHANGED <<committed, deleted, lease, noted, epoch, at, offset, claims, effects>>

Refuse == \E r \in Relays : /\ sent[r] # 0 /\ sent' = [sent EXCEPT ![r] = 0] \* the log does not take it
                            /\ UNCHANGED <<committed, deleted, lease, noted, epoch, acked, late, log, at, offset, claims, effects>>

Settle(r) == /\ acked[r] # {} /\ noted' = noted \union acked[r]
             /\ deleted' = IF epoch[r] = lease.epoch THEN deleted \union acked[r] ELSE deleted
             /\ UNCHANGED <<committed, lease, epoch, sent, acked, late, log, at, offset, claims, effects>>

Handle == /\ at < Len(log) /\ at' = at + 1
          /\ LET m == log[at + 1] IN IF m \in claims THEN UNCHANGED <<claims, effects>>
                ELSE claims' = claims \union {m} /\ effects' = [effects EXCEPT ![m] = @ + 1]
          /\ UNCHANGED <<committed, deleted, lease, noted, epoch, sent, acked, late, log, offset>>

CommitOffset == /\ offset < at \/ (OffsetBeforeWork /\ at < Len(log))
                /\ offset' = IF OffsetBeforeWork THEN at + 1 ELSE at
                /\ UNCHANGED <<committed, deleted, lease, noted, epoch, sent, acked, late, log, at, claims, effects>>

CrashConsumer == /\ at # offset /\ at' = offset
                 /\ UNCHANGED <<committed, deleted, lease, noted, epoch, sent, acked, late, log, offset, claims, effects>>

Underway(m) == m \in late \/ \E r \in Relays : sent[r] = m
NothingLost == \A m \in deleted : InLog(m) \/ (DeleteBeforeAck /\ Underway(m))
OnlyCommitted == \A k \in 1..Len(log) : log[k] <= committed
InOrder == \A k \in 1..Len(log) : \A m \in 1..(log[k] - 1) : \E j \in 1..k : log[j] = m
HandledOnce == \A m \in Messages : effects[m] <= 1
NotPassed == \A k \in 1..offset : k <= Len(log) => effects[log[k]] = 1

Init == /\ committed = 0 /\ deleted = {} /\ lease = [owner |-> "nobody", epoch |-> 0, expired |-> FALSE] /\ noted = {}
        /\ epoch = [r \in Relays |-> 0] /\ sent = [r \in Relays |-> 0] /\ acked = [r \in Relays |-> {}] /\ late = {}
        /\ log = <<>> /\ at = 0 /\ offset = 0 /\ claims = {} /\ effects = [m \in Messages |-> 0]
Next == \/ Commit \/ Expire \/ Arrive \/ Refuse \/ Handle \/ CommitOffset \/ CrashConsumer
        \/ \E r \in Relays : Acquire(r) \/ Crash(r) \/ Send(r) \/ Settle(r)
Spec == Init /\ [][Next]_vars
=============================================================================
