-- Commits cost the server less. The first audit events of a transaction are in
-- its row, as lines of JSON; those that do not fit, and those of before, are rows
-- of amends_events.
--
-- There is no default: writes of a program of the schema before, which was
-- forgotten and still runs, fail.
ALTER TABLE amends_transactions ADD COLUMN trail VARBINARY(6144) NOT NULL;

-- A commit of one statement names the turn that it belongs to. One that was given
-- up may arrive late: whoever has to know that it will not takes another turn.
ALTER TABLE amends_leases ADD COLUMN turn BIGINT NOT NULL DEFAULT 0;
