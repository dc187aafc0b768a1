-- What Boxoffice says is wrong, or was although it healed: how it stands, what it is, which, and how often.
-- $1 whether faults took data from Redis   $2 the alarm that may be open then   $3 findings of audits that nothing excuses
-- $4 the alarm that nothing excuses        $5 the alarm of recovery of which nothing excuses these details ($6, patterns)
SELECT 'open', 'gap', 'in shard ' || shard, count(*)
FROM gaps WHERE resolved_at IS NULL GROUP BY shard
UNION ALL
SELECT 'open', 'dead letter', kind, count(*)
FROM dead_letters WHERE resolved_at IS NULL GROUP BY kind
UNION ALL
SELECT 'open', 'alarm', kind, count(*)
FROM alarms WHERE resolved_at IS NULL AND NOT ($1 AND kind = $2) GROUP BY kind
UNION ALL
SELECT 'recorded', 'audit', kind, count(*)
FROM reconciliation_findings WHERE kind = ANY ($3::text[]) GROUP BY kind
UNION ALL
SELECT 'resolved', 'alarm', kind, count(*)
FROM alarms
WHERE resolved_at IS NOT NULL AND (kind = $4 OR kind = $5 AND detail LIKE ANY ($6::text[]))
GROUP BY kind
