-- What relays note about keys that do not get through; a row that somebody else deletes
-- lets its key be tried at once.
CREATE TABLE IF NOT EXISTS amends_outbox_blocked (
  part       INTEGER NOT NULL,
  row_id     INTEGER NOT NULL,
  msg_id     BLOB NOT NULL,
  topic      TEXT NOT NULL,
  msg_key    BLOB NOT NULL,
  attempts   INTEGER NOT NULL,
  poison     INTEGER NOT NULL,
  error      BLOB NOT NULL,
  blocked_at INTEGER NOT NULL,
  retry_at   INTEGER NOT NULL,
  PRIMARY KEY (part, row_id)
) WITHOUT ROWID;

-- What people did. touched is as in amends_inbox of MySQL.
CREATE TABLE IF NOT EXISTS amends_outbox_acts (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  request_id  BLOB NOT NULL UNIQUE,
  verb        TEXT NOT NULL,
  target      BLOB NOT NULL,
  actor       BLOB NOT NULL,
  reason      BLOB NOT NULL,
  messages    INTEGER NOT NULL,
  message_ids BLOB NOT NULL,
  more        INTEGER NOT NULL,
  acted_at    INTEGER NOT NULL,
  touched     INTEGER NOT NULL
);

-- One row, a random value: no two databases have the same.
CREATE TABLE IF NOT EXISTS amends_outbox_identity (
  only_row INTEGER PRIMARY KEY,
  value    TEXT NOT NULL
);
