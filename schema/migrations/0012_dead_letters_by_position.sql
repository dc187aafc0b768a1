-- A record of a topic that was made anew may lie at the offset of an open one of the old topic: it is another where its position is.
DROP INDEX dead_letters_open_offset;
CREATE UNIQUE INDEX dead_letters_open ON dead_letters (shard, kafka_offset, coalesce(epoch, -1), coalesce(sequence, -1))
    WHERE outcome IS NULL;
