-- The highest message handled of each key, for sources whose messages of one key carry a growing
-- sequence. prior is the mark before the last statement; aside is the one message that
-- goes by its claim instead. A sequence is above -9223372036854775808, which means none.
CREATE TABLE IF NOT EXISTS amends_inbox_marks (
  mark_key   BLOB NOT NULL PRIMARY KEY,
  mark       INTEGER NOT NULL,
  prior      INTEGER NOT NULL,
  aside      INTEGER NOT NULL,
  last_id    BLOB NOT NULL,
  touched_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Messages in retry topics whose key keeps its order: a key with rows here is handled there,
-- the lowest row first. Bodies are in the log.
CREATE TABLE IF NOT EXISTS amends_inbox_parked (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  park_key  BLOB NOT NULL,
  msg_id    BLOB NOT NULL,
  parked_at INTEGER NOT NULL,
  UNIQUE (park_key, msg_id)
);

CREATE INDEX IF NOT EXISTS amends_inbox_parked_order ON amends_inbox_parked (park_key, id);
