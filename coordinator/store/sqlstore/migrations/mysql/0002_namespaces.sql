-- Namespaces, and what is stalled, for whom. Each statement is done whole or
-- not at all; one that finds its work done is passed over.
ALTER TABLE amends_transactions
  MODIFY COLUMN gid VARBINARY(192) NOT NULL,
  ADD COLUMN namespace VARBINARY(63)  NOT NULL DEFAULT '',
  ADD COLUMN stalled   TINYINT        NOT NULL DEFAULT 0,
  ADD COLUMN waits_for VARBINARY(128) NOT NULL DEFAULT '';

ALTER TABLE amends_transactions
  -- What is due, by shard: whoever owns some meets nothing of the others.
  ADD KEY amends_due_by_shard (shard, next_at, gid),
  -- Lists, newest first, of a namespace, and of what is stalled.
  ADD KEY amends_namespace (namespace, newest, gid),
  ADD KEY amends_stalled (stalled, newest, gid),
  ADD KEY amends_waits_for (waits_for, newest, gid),
  -- Retention, and counts of what is finished.
  ADD KEY amends_ended (finished_at, gid, state, namespace);

ALTER TABLE amends_transactions DROP KEY amends_due, DROP KEY amends_finished;

-- A gid stands behind its namespace.
ALTER TABLE amends_labels MODIFY COLUMN gid VARBINARY(192) NOT NULL;
ALTER TABLE amends_events MODIFY COLUMN gid VARBINARY(192) NOT NULL;
