SELECT policy, key, sum(allowed)::int8 AS allowed, sum(refused)::int8 AS refused,
       sum(refused_from_memory)::int8 AS refused_from_memory,
       max(minute) FILTER (WHERE refused + refused_from_memory > 0) AS last_refused
FROM rate_limit_minutes
WHERE minute > now() - make_interval(mins => $2) AND ($1::text IS NULL OR policy = $1)
GROUP BY policy, key
HAVING sum(refused + refused_from_memory) > 0
ORDER BY sum(refused + refused_from_memory) DESC, policy, key
LIMIT $3
