-- What restate_event.lua and mend_stock.lua share: an event that is said once more. It is placed between
-- whole_event.lua and the script's own text.

-- The event as a table, or nil where its hash is missing or is no event's.
local function read_restated()
  local event = read_whole(KEYS[5])
  return is_whole(event) and event or nil
end

local function refuse(outcome) return { outcome, '', 0, 0 } end

-- Logs the whole event with its totals. The field `stated` remembers at which sequence that was: what PostgreSQL says of
-- this record is known to be stale as soon as the field has moved on.
local function restate_event(shard, kind, event_id, event)
  next_sequence(shard)
  event.stated = string.format('%d', shard.seq)
  changed.stated = event.stated
  local image = cjson.encode(event)
  decide(shard, kind, event_id, image, '')
  return commit(shard, { 'C', image, shard.epoch, shard.seq }, write_changed)
end
