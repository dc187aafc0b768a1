-- A topic that was made anew begins at offset 0 again: only of what is open an offset has one row.
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_shard_kafka_offset_key;
CREATE UNIQUE INDEX dead_letters_open_offset ON dead_letters (shard, kafka_offset) WHERE outcome IS NULL;

-- Whether Kafka did not have the offset at which the shard would have gone on. It may have others by now that look like it.
ALTER TABLE gaps ADD COLUMN offset_lost boolean NOT NULL DEFAULT false;
