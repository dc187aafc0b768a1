DELETE FROM rate_limit_minutes
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM rate_limit_minutes WHERE minute < now() - make_interval(hours => $1) LIMIT $2
))
