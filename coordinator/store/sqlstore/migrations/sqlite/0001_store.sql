-- One row per transaction. Times are microseconds since 1970, NULL is the zero
-- time. What lists read comes first: a large body or definition behind it is
-- not touched by them.
CREATE TABLE amends_transactions (
  id          INTEGER PRIMARY KEY,
  gid         TEXT    NOT NULL UNIQUE,
  shard       INTEGER NOT NULL,
  kind        TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  state       INTEGER NOT NULL,
  paused      INTEGER NOT NULL,
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

-- What is due: finished and parked transactions are not in it.
CREATE INDEX amends_due ON amends_transactions (next_at, gid, shard) WHERE next_at IS NOT NULL;
-- Lists, newest first, and those of what is live.
CREATE INDEX amends_created ON amends_transactions (created_at DESC, gid);
CREATE INDEX amends_live ON amends_transactions (created_at DESC, gid) WHERE finished_at IS NULL;
-- Retention, and counts of what is finished.
CREATE INDEX amends_finished ON amends_transactions (finished_at, gid, state) WHERE finished_at IS NOT NULL;

CREATE TABLE amends_labels (
  name       TEXT    NOT NULL,
  value      TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  gid        TEXT    NOT NULL,
  PRIMARY KEY (name, value, created_at DESC, gid)
) STRICT, WITHOUT ROWID;

CREATE INDEX amends_labels_gid ON amends_labels (gid);

CREATE TABLE amends_events (
  gid  TEXT    NOT NULL,
  seq  INTEGER NOT NULL,
  at   INTEGER NOT NULL,
  type TEXT    NOT NULL,
  data BLOB    NOT NULL,
  prev BLOB    NOT NULL,
  hash BLOB    NOT NULL,
  PRIMARY KEY (gid, seq)
) STRICT, WITHOUT ROWID;

-- One row per shard, made when the store is created. An empty owner is nobody.
CREATE TABLE amends_leases (
  shard      INTEGER PRIMARY KEY,
  owner      TEXT    NOT NULL,
  epoch      INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
