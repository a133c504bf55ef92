-- MySQL ends a transaction at each of these statements, so each can be
-- repeated: a process that died halfway is finished by the next one.

-- One row per transaction. Times are microseconds since 1970, NULL is the zero
-- time. Everything that a caller names is bytes, compared as bytes: no
-- collation, no padding. newest is what lists are ordered by: not every server
-- has descending indexes.
CREATE TABLE IF NOT EXISTS amends_transactions (
  gid         VARBINARY(128)   NOT NULL,
  shard       INT              NOT NULL,
  kind        VARBINARY(64)    NOT NULL,
  name        VARBINARY(255)   NOT NULL,
  state       TINYINT UNSIGNED NOT NULL,
  paused      TINYINT          NOT NULL,
  version     BIGINT           NOT NULL,
  reason      MEDIUMBLOB       NOT NULL,
  created_at  BIGINT           NOT NULL,
  newest      BIGINT AS (-created_at) STORED,
  updated_at  BIGINT           NOT NULL,
  deadline    BIGINT,
  next_at     BIGINT,
  finished_at BIGINT,
  event_seq   BIGINT           NOT NULL,
  event_hash  VARBINARY(255)   NOT NULL,
  digest      VARBINARY(255)   NOT NULL,
  labels      MEDIUMBLOB       NOT NULL, -- JSON, empty means none
  body        LONGBLOB         NOT NULL,
  definition  LONGBLOB         NOT NULL,
  PRIMARY KEY (gid),
  -- What is due: what is not stands apart, under NULL.
  KEY amends_due (next_at, gid, shard),
  -- Lists, newest first, and those of what is live.
  KEY amends_created (newest, gid),
  KEY amends_live (finished_at, newest, gid),
  -- Retention, and counts of what is finished.
  KEY amends_finished (finished_at, gid, state)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS amends_labels (
  name   VARBINARY(255)  NOT NULL,
  value  VARBINARY(2048) NOT NULL,
  newest BIGINT          NOT NULL, -- of the transaction
  gid    VARBINARY(128)  NOT NULL,
  PRIMARY KEY (name, value, newest, gid),
  KEY amends_labels_gid (gid)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS amends_events (
  gid  VARBINARY(128) NOT NULL,
  seq  BIGINT         NOT NULL,
  at   BIGINT         NOT NULL,
  type VARBINARY(64)  NOT NULL,
  data LONGBLOB       NOT NULL,
  prev VARBINARY(255) NOT NULL,
  hash VARBINARY(255) NOT NULL,
  PRIMARY KEY (gid, seq)
) ENGINE = InnoDB;

-- One row per shard, made when the store is created. An empty owner is nobody.
CREATE TABLE IF NOT EXISTS amends_leases (
  shard      INT            NOT NULL,
  owner      VARBINARY(255) NOT NULL,
  epoch      BIGINT         NOT NULL,
  expires_at BIGINT         NOT NULL,
  PRIMARY KEY (shard)
) ENGINE = InnoDB;
