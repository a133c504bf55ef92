-- What package sdk/idempotency remembers of requests. Key and fingerprint are SHA-256
-- digests; status is 0 while a handler runs; touched is as in amends_inbox of MySQL.
CREATE TABLE IF NOT EXISTS amends_idempotency (
  request_key BLOB NOT NULL PRIMARY KEY,
  fingerprint BLOB NOT NULL,
  token       INTEGER NOT NULL,
  status      INTEGER NOT NULL,
  header      BLOB NOT NULL,
  body        BLOB NOT NULL,
  lease_until INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL,
  touched     INTEGER NOT NULL
);

CREATE INDEX IF NOT EXISTS amends_idempotency_expires ON amends_idempotency (expires_at);
