-- Changes a published event: name, times, limit, status, capacities; all of them or none.
-- Each kind of change is a decision of its own, in this order: amended, capacity_changed, then paused, resumed or
-- closed; all of one call carry the event as it is after the call. The same value changes nothing.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5] event hash
-- ARGV[4] event id (16 bytes)
-- ARGV[5] when the event must have been changed last; '' for whenever
-- ARGV[6..] field, value pairs: name, starts, open, close, limit, status, cap<ordinal>; '' clears open, close, limit
--
-- Returns {outcome, the event hash as a JSON object}: C changed, P nothing to change, N closed is final,
-- K a capacity is below what is held and sold, W sales would close before they open, S somebody has changed it
-- meanwhile, O outbox full, U the event or a field of it is missing, or a number of it is none.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local event = read_whole(KEYS[5])
if not is_whole(event) then return { 'U', '' } end

if ARGV[5] ~= '' and ARGV[5] ~= event.updated then return { 'S', cjson.encode(event) } end

local STATUS_KIND = { paused = PAUSED_KIND, on_sale = RESUMED_KIND, closed = CLOSED_KIND }
local before = cjson.encode(event)
local amended, capacity_changed, status_kind = false, false, nil
for i = 6, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  local ordinal = string.match(field, '^cap(%d+)$')
  if event[field] == nil then return { 'U', '' } end
  if event[field] ~= value then
    if ordinal then
      capacity_changed = true
      if tonumber(value) < event['held' .. ordinal] + event['sold' .. ordinal] then return { 'K', before } end
    elseif field == 'status' then
      if event.status == 'closed' then return { 'N', before } end
      status_kind = STATUS_KIND[value]
    else
      amended = true
    end
    event[field] = value
    changed[field] = value
  end
end
if event.open ~= '' and event.close ~= '' and tonumber(event.close) <= tonumber(event.open) then
  return { 'W', before }
end

local kinds = {}
if amended then kinds[#kinds + 1] = AMENDED_KIND end
if capacity_changed then kinds[#kinds + 1] = CAPACITY_CHANGED_KIND end
if status_kind then kinds[#kinds + 1] = status_kind end
if #kinds == 0 then return { 'P', before } end
if shard.outbox_full then return { 'O', '' } end

-- Never twice the same: by this time a writer knows that nobody was faster.
event.updated = string.format('%d', math.max(shard.now, tonumber(event.updated) + 1))
changed.updated = event.updated
local image = cjson.encode(event)
for _, kind in ipairs(kinds) do
  next_sequence(shard)
  decide(shard, kind, ARGV[4], image, '')
end
return commit(shard, { 'C', image }, write_changed)
