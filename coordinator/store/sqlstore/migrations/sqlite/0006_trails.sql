-- Commits write less. The first audit events of a transaction are in its row, as
-- lines of JSON; those that do not fit, and those of before, are rows of
-- amends_events.
ALTER TABLE amends_transactions ADD COLUMN trail TEXT NOT NULL DEFAULT '';
