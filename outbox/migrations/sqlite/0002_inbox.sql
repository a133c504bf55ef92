CREATE TABLE IF NOT EXISTS amends_inbox (
  claim_key  BLOB NOT NULL PRIMARY KEY,
  claimed_at INTEGER NOT NULL,
  reply      BLOB
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS amends_inbox_claimed ON amends_inbox (claimed_at);
