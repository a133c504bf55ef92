-- AUTOINCREMENT: an id is never used twice, so a relay's floor never hides a row.
-- Times are microseconds since 1970 by the database's clock.
CREATE TABLE IF NOT EXISTS amends_outbox_0 (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  msg_id     BLOB NOT NULL,
  topic      TEXT NOT NULL,
  msg_key    BLOB NOT NULL,
  body       BLOB NOT NULL,
  headers    BLOB NOT NULL,
  idem_key   BLOB NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS amends_outbox_1 (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  msg_id     BLOB NOT NULL,
  topic      TEXT NOT NULL,
  msg_key    BLOB NOT NULL,
  body       BLOB NOT NULL,
  headers    BLOB NOT NULL,
  idem_key   BLOB NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS amends_outbox_2 (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  msg_id     BLOB NOT NULL,
  topic      TEXT NOT NULL,
  msg_key    BLOB NOT NULL,
  body       BLOB NOT NULL,
  headers    BLOB NOT NULL,
  idem_key   BLOB NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS amends_outbox_3 (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  msg_id     BLOB NOT NULL,
  topic      TEXT NOT NULL,
  msg_key    BLOB NOT NULL,
  body       BLOB NOT NULL,
  headers    BLOB NOT NULL,
  idem_key   BLOB NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS amends_outbox_owner (
  part       INTEGER PRIMARY KEY,
  owner      TEXT NOT NULL,
  epoch      INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
);

INSERT INTO amends_outbox_owner (part, owner, epoch, expires_at)
VALUES (0, '', 0, 0), (1, '', 0, 0), (2, '', 0, 0), (3, '', 0, 0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS amends_outbox_dead (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  part       INTEGER NOT NULL,
  msg_id     BLOB NOT NULL,
  topic      TEXT NOT NULL,
  msg_key    BLOB NOT NULL,
  body       BLOB NOT NULL,
  headers    BLOB NOT NULL,
  idem_key   BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  failed_at  INTEGER NOT NULL,
  attempts   INTEGER NOT NULL,
  error      BLOB NOT NULL
);
