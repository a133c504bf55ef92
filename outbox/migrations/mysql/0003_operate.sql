-- What relays note about keys that do not get through; a row that somebody else deletes
-- lets its key be tried at once.
CREATE TABLE IF NOT EXISTS amends_outbox_blocked (
  part       INT NOT NULL,
  row_id     BIGINT NOT NULL,
  msg_id     VARBINARY(128) NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  msg_key    VARBINARY(1024) NOT NULL,
  attempts   INT NOT NULL,
  poison     INT NOT NULL,
  error      BLOB NOT NULL,
  blocked_at BIGINT NOT NULL,
  retry_at   BIGINT NOT NULL,
  PRIMARY KEY (part, row_id)
) ENGINE = InnoDB;

-- What people did. touched is as in amends_inbox.
CREATE TABLE IF NOT EXISTS amends_outbox_acts (
  id          BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  request_id  VARBINARY(128) NOT NULL,
  verb        VARBINARY(16) NOT NULL,
  target      LONGBLOB NOT NULL,
  actor       BLOB NOT NULL,
  reason      BLOB NOT NULL,
  messages    BIGINT NOT NULL,
  message_ids LONGBLOB NOT NULL,
  more        INT NOT NULL,
  acted_at    BIGINT NOT NULL,
  touched     BIGINT NOT NULL,
  UNIQUE KEY amends_outbox_acts_request (request_id)
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

-- One row, a random value: no two databases have the same.
CREATE TABLE IF NOT EXISTS amends_outbox_identity (
  only_row INT NOT NULL PRIMARY KEY,
  value    VARBINARY(64) NOT NULL
) ENGINE = InnoDB;
