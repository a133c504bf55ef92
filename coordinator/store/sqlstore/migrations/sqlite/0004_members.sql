-- Coordinators as they know each other: of an embedded store, this one.
CREATE TABLE amends_members (
  name       TEXT    NOT NULL PRIMARY KEY,
  address    TEXT    NOT NULL,
  version    TEXT    NOT NULL,
  draining   INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: what the members prove to each other that they share the store.
CREATE TABLE amends_secret (
  id     INTEGER NOT NULL PRIMARY KEY,
  secret BLOB    NOT NULL
) STRICT;
