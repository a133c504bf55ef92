-- AUTO_INCREMENT ids grow in the order of the inserts; the comment makes TiDB's do so
-- too. Texts are VARBINARY: any bytes, compared byte by byte, whatever the server's
-- character set. Times are microseconds since 1970 by the database's clock.
CREATE TABLE IF NOT EXISTS amends_outbox_0 (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  msg_id     VARBINARY(128) NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  msg_key    VARBINARY(1024) NOT NULL,
  body       LONGBLOB NOT NULL,
  headers    LONGBLOB NOT NULL,
  idem_key   VARBINARY(256) NOT NULL,
  created_at BIGINT NOT NULL
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

CREATE TABLE IF NOT EXISTS amends_outbox_1 (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  msg_id     VARBINARY(128) NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  msg_key    VARBINARY(1024) NOT NULL,
  body       LONGBLOB NOT NULL,
  headers    LONGBLOB NOT NULL,
  idem_key   VARBINARY(256) NOT NULL,
  created_at BIGINT NOT NULL
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

CREATE TABLE IF NOT EXISTS amends_outbox_2 (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  msg_id     VARBINARY(128) NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  msg_key    VARBINARY(1024) NOT NULL,
  body       LONGBLOB NOT NULL,
  headers    LONGBLOB NOT NULL,
  idem_key   VARBINARY(256) NOT NULL,
  created_at BIGINT NOT NULL
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

CREATE TABLE IF NOT EXISTS amends_outbox_3 (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  msg_id     VARBINARY(128) NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  msg_key    VARBINARY(1024) NOT NULL,
  body       LONGBLOB NOT NULL,
  headers    LONGBLOB NOT NULL,
  idem_key   VARBINARY(256) NOT NULL,
  created_at BIGINT NOT NULL
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

CREATE TABLE IF NOT EXISTS amends_outbox_owner (
  part       INT NOT NULL PRIMARY KEY,
  owner      VARBINARY(512) NOT NULL,
  epoch      BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
) ENGINE = InnoDB;

INSERT IGNORE INTO amends_outbox_owner (part, owner, epoch, expires_at)
VALUES (0, '', 0, 0), (1, '', 0, 0), (2, '', 0, 0), (3, '', 0, 0);

CREATE TABLE IF NOT EXISTS amends_outbox_dead (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  part       INT NOT NULL,
  msg_id     VARBINARY(128) NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  msg_key    VARBINARY(1024) NOT NULL,
  body       LONGBLOB NOT NULL,
  headers    LONGBLOB NOT NULL,
  idem_key   VARBINARY(256) NOT NULL,
  created_at BIGINT NOT NULL,
  failed_at  BIGINT NOT NULL,
  attempts   INT NOT NULL,
  error      BLOB NOT NULL
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;
