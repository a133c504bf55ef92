-- What package sdk/idempotency remembers of requests. Key and fingerprint are SHA-256
-- digests; status is 0 while a handler runs; touched is as in amends_inbox. expires_at
-- stays as it was inserted, so that an answer is recorded without touching its index.
CREATE TABLE IF NOT EXISTS amends_idempotency (
  request_key VARBINARY(32) NOT NULL PRIMARY KEY,
  fingerprint VARBINARY(32) NOT NULL,
  token       BIGINT NOT NULL,
  status      INT NOT NULL,
  header      LONGBLOB NOT NULL,
  body        LONGBLOB NOT NULL,
  lease_until BIGINT NOT NULL,
  expires_at  BIGINT NOT NULL,
  touched     BIGINT NOT NULL,
  KEY amends_idempotency_expires (expires_at)
) ENGINE = InnoDB;
