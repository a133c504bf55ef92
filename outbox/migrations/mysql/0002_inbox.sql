-- touched grows with each claim and each reply, so that every such statement changes
-- the row: MySQL does not count a row that stays as it was as affected.
CREATE TABLE IF NOT EXISTS amends_inbox (
  claim_key  VARBINARY(512) NOT NULL PRIMARY KEY,
  claimed_at BIGINT NOT NULL,
  touched    BIGINT NOT NULL,
  reply      LONGBLOB,
  KEY amends_inbox_claimed (claimed_at)
) ENGINE = InnoDB;
