-- Commits cost the server less: retention and counts of what is finished read
-- amends_live, which has all of it.
--
-- A program of the schema before that still runs drives transactions as ever, but
-- asks for the index that is gone: what it purges and counts fails until it is
-- replaced.
ALTER TABLE amends_transactions DROP KEY amends_ended;
