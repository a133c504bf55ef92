-- The express lane: a partition like the others.
CREATE TABLE IF NOT EXISTS amends_outbox_4 (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  msg_id     VARBINARY(128) NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  msg_key    VARBINARY(1024) NOT NULL,
  body       LONGBLOB NOT NULL,
  headers    LONGBLOB NOT NULL,
  idem_key   VARBINARY(256) NOT NULL,
  created_at BIGINT NOT NULL
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

INSERT IGNORE INTO amends_outbox_owner (part, owner, epoch, expires_at) VALUES (4, '', 0, 0);

-- What waits for its time, or behind a message of its key that does, out of the way of
-- everything else. Within a key due_at never falls as id grows. The largest BIGINT: parked.
CREATE TABLE IF NOT EXISTS amends_outbox_aside (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  part       INT NOT NULL,
  msg_id     VARBINARY(128) NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  msg_key    VARBINARY(1024) NOT NULL,
  body       LONGBLOB NOT NULL,
  headers    LONGBLOB NOT NULL,
  idem_key   VARBINARY(256) NOT NULL,
  created_at BIGINT NOT NULL,
  not_before BIGINT NOT NULL,
  due_at     BIGINT NOT NULL,
  attempts   INT NOT NULL,
  poison     INT NOT NULL,
  error      BLOB NOT NULL,
  failed_at  BIGINT NOT NULL,
  KEY amends_outbox_aside_due (part, due_at, id),
  KEY amends_outbox_aside_key (part, msg_key, id)
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;
