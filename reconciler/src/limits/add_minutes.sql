INSERT INTO rate_limit_minutes AS known (minute, policy, key, allowed, refused, refused_from_memory)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::int8[])
ON CONFLICT (minute, policy, key) DO UPDATE
SET allowed = known.allowed + excluded.allowed,
    refused = known.refused + excluded.refused,
    refused_from_memory = known.refused_from_memory + excluded.refused_from_memory
