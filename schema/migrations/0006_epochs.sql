-- Where each epoch of a shard began: behind which sequence. It tells a decision that was applied from a late one of an
-- ended epoch whose sequence number was used again, and names the epoch of the decision at a sequence.
CREATE TABLE epochs (
    shard        int2 NOT NULL REFERENCES shards (shard),
    epoch        int4 NOT NULL,
    began_behind int8 NOT NULL,
    PRIMARY KEY (shard, epoch)
);
