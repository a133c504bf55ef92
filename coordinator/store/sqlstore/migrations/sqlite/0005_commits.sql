-- Retention, and counts of what is finished. What finished at the same time is in
-- the order of lists.
DROP INDEX amends_ended;
CREATE INDEX amends_ended ON amends_transactions
 (finished_at, created_at DESC, gid, state, namespace) WHERE finished_at IS NOT NULL;
