-- Counts of what is live and of what is stalled: the indexes that lead them
-- have all that is asked about, so that no row is looked at. Their order, that
-- of lists, is as it was.
DROP INDEX amends_live;
DROP INDEX amends_stalled;
CREATE INDEX amends_live ON amends_transactions
 (created_at DESC, gid, state, namespace, kind, paused, stalled, finished_at) WHERE finished_at IS NULL;
CREATE INDEX amends_stalled ON amends_transactions
 (created_at DESC, gid, state, namespace, kind, paused, stalled, finished_at) WHERE stalled = 1;
