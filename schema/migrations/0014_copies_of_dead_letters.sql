-- When a dead letter was copied to the dead-letter topic; null until it is. The row does not wait for its copy, or a topic that is away
-- would keep all shards from being applied. A reconciler of before, which may run on beside this, does not name the column: it has copied
-- what it inserts.
ALTER TABLE dead_letters ADD COLUMN copied_at timestamptz DEFAULT now();
CREATE INDEX dead_letters_uncopied ON dead_letters (shard, id) WHERE copied_at IS NULL;
