-- Coordinators as they know each other. Everything that a caller names is
-- bytes, compared as bytes. Programs of the schema before neither know nor
-- miss these tables.
CREATE TABLE IF NOT EXISTS amends_members (
  name       VARBINARY(255) NOT NULL,
  address    VARBINARY(255) NOT NULL,
  version    VARBINARY(255) NOT NULL,
  draining   TINYINT        NOT NULL,
  started_at BIGINT         NOT NULL,
  expires_at BIGINT         NOT NULL,
  PRIMARY KEY (name)
) ENGINE = InnoDB;

-- One row: what the members prove to each other that they share the store.
CREATE TABLE IF NOT EXISTS amends_secret (
  id     INT            NOT NULL,
  secret VARBINARY(255) NOT NULL,
  PRIMARY KEY (id)
) ENGINE = InnoDB;
