-- Namespaces, and what is stalled, for whom. The table is made anew, so that
-- what lists read stays before the bodies and definitions.
CREATE TABLE amends_transactions_2 (
  id          INTEGER PRIMARY KEY,
  gid         TEXT    NOT NULL UNIQUE,
  shard       INTEGER NOT NULL,
  namespace   TEXT    NOT NULL,
  kind        TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  state       INTEGER NOT NULL,
  paused      INTEGER NOT NULL,
  stalled     INTEGER NOT NULL,
  waits_for   TEXT    NOT NULL,
  version     INTEGER NOT NULL,
  reason      TEXT    NOT NULL,
  created_at  INTEGER NOT NULL,
  updated_at  INTEGER NOT NULL,
  deadline    INTEGER,
  next_at     INTEGER,
  finished_at INTEGER,
  event_seq   INTEGER NOT NULL,
  event_hash  BLOB    NOT NULL,
  digest      BLOB    NOT NULL,
  labels      TEXT    NOT NULL, -- JSON; empty: none
  body        BLOB    NOT NULL,
  definition  BLOB    NOT NULL
) STRICT;

INSERT INTO amends_transactions_2 SELECT id, gid, shard, '', kind, name, state, paused, 0, '', version, reason,
 created_at, updated_at, deadline, next_at, finished_at, event_seq, event_hash, digest, labels, body, definition
 FROM amends_transactions;

DROP TABLE amends_transactions;
ALTER TABLE amends_transactions_2 RENAME TO amends_transactions;

-- What is due, by shard: whoever owns some meets nothing of the others.
CREATE INDEX amends_due_by_shard ON amends_transactions (shard, next_at, gid) WHERE next_at IS NOT NULL;
-- Lists, newest first: all, of a namespace, of what is live, of what is stalled.
CREATE INDEX amends_created ON amends_transactions (created_at DESC, gid);
CREATE INDEX amends_namespace ON amends_transactions (namespace, created_at DESC, gid);
CREATE INDEX amends_live ON amends_transactions (created_at DESC, gid) WHERE finished_at IS NULL;
CREATE INDEX amends_stalled ON amends_transactions (created_at DESC, gid) WHERE stalled = 1;
CREATE INDEX amends_waits_for ON amends_transactions (waits_for, created_at DESC, gid) WHERE waits_for <> '';
-- Retention, and counts of what is finished.
CREATE INDEX amends_ended ON amends_transactions (finished_at, gid, state, namespace) WHERE finished_at IS NOT NULL;
