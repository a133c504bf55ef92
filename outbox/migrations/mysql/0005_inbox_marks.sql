-- The highest message handled of each key, for sources whose messages of one key carry a growing
-- sequence. prior is the mark before the last statement; aside is the one message that
-- goes by its claim instead. A sequence is above -9223372036854775808, which means none.
CREATE TABLE IF NOT EXISTS amends_inbox_marks (
  mark_key   VARBINARY(512) NOT NULL PRIMARY KEY,
  mark       BIGINT NOT NULL,
  prior      BIGINT NOT NULL,
  aside      BIGINT NOT NULL,
  last_id    VARBINARY(256) NOT NULL,
  touched_at BIGINT NOT NULL
) ENGINE = InnoDB;

-- Messages in retry topics whose key keeps its order: a key with rows here is handled there,
-- the lowest row first. Bodies are in the log.
CREATE TABLE IF NOT EXISTS amends_inbox_parked (
  id        BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  park_key  VARBINARY(512) NOT NULL,
  msg_id    VARBINARY(256) NOT NULL,
  parked_at BIGINT NOT NULL,
  UNIQUE KEY amends_inbox_parked_message (park_key, msg_id),
  KEY amends_inbox_parked_order (park_key, id)
) ENGINE = InnoDB /*T![auto_id_cache] AUTO_ID_CACHE 1 */;
