-- How far a relay that reads the log alone (SourceLog) has got, per partition.
CREATE TABLE IF NOT EXISTS amends_outbox_checkpoint (
  part     INT NOT NULL PRIMARY KEY,
  position LONGBLOB NOT NULL,
  epoch    BIGINT NOT NULL,
  saved_at BIGINT NOT NULL
) ENGINE = InnoDB;
