-- Counts of what is live and of what is stalled: the indexes that lead them
-- have all that is asked about, so that no row is looked at. Their order, that
-- of lists, is as it was. Not every server drops and adds one name at once.
ALTER TABLE amends_transactions
  DROP KEY amends_live,
  DROP KEY amends_stalled;
ALTER TABLE amends_transactions
  ADD KEY amends_live (finished_at, newest, gid, state, namespace, kind, paused, stalled),
  ADD KEY amends_stalled (stalled, newest, gid, state, namespace, kind, paused, finished_at);
