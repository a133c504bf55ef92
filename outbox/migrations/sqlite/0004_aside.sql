-- The express lane: a partition like the others.
CREATE TABLE IF NOT EXISTS amends_outbox_4 (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  msg_id     BLOB NOT NULL,
  topic      TEXT NOT NULL,
  msg_key    BLOB NOT NULL,
  body       BLOB NOT NULL,
  headers    BLOB NOT NULL,
  idem_key   BLOB NOT NULL,
  created_at INTEGER NOT NULL
);

INSERT INTO amends_outbox_owner (part, owner, epoch, expires_at) VALUES (4, '', 0, 0) ON CONFLICT DO NOTHING;

-- What waits for its time, or behind a message of its key that does, out of the way of
-- everything else. Within a key due_at never falls as id grows. The largest INTEGER: parked.
CREATE TABLE IF NOT EXISTS amends_outbox_aside (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  part       INTEGER NOT NULL,
  msg_id     BLOB NOT NULL,
  topic      TEXT NOT NULL,
  msg_key    BLOB NOT NULL,
  body       BLOB NOT NULL,
  headers    BLOB NOT NULL,
  idem_key   BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  not_before INTEGER NOT NULL,
  due_at     INTEGER NOT NULL,
  attempts   INTEGER NOT NULL,
  poison     INTEGER NOT NULL,
  error      BLOB NOT NULL,
  failed_at  INTEGER NOT NULL
);

CREATE INDEX IF NOT EXISTS amends_outbox_aside_due ON amends_outbox_aside (part, due_at, id);

CREATE INDEX IF NOT EXISTS amends_outbox_aside_key ON amends_outbox_aside (part, msg_key, id);
