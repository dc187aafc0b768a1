-- Moves an event's counters by the differences that were found at its last restatement. Decisions move counters by
-- exact amounts, so that a difference stays the same while tickets are sold; it is stale only when the event was
-- restated, mended or restored since, and then nothing is changed.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5] event hash
-- ARGV[4] event id (16 bytes)
-- ARGV[5], ARGV[6]  epoch and sequence of the restatement on which the differences rest
-- ARGV[7..] ordinal, held, sold: what is added to the counters of a ticket type
--
-- Returns {outcome, the event hash as a JSON object, epoch, sequence}: C mended, X the differences are stale,
-- K a counter would be below 0 or more would be held and sold than there is, O outbox full,
-- U the event or a field of it is missing, or a number of it is none. Only C writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end
local event = read_restated()
if not event then return refuse('U') end
if shard.epoch ~= tonumber(ARGV[5]) or event.stated ~= ARGV[6] then return refuse('X') end
if shard.outbox_full then return refuse('O') end

for i = 7, #ARGV, 3 do
  local capacity, held, sold = event['cap' .. ARGV[i]], event['held' .. ARGV[i]], event['sold' .. ARGV[i]]
  if not (capacity and held and sold) then return refuse('U') end
  held, sold = held + ARGV[i + 1], sold + ARGV[i + 2]
  if held < 0 or sold < 0 or held + sold > tonumber(capacity) then return refuse('K') end
  for field, value in pairs({ ['held' .. ARGV[i]] = held, ['sold' .. ARGV[i]] = sold }) do
    event[field] = string.format('%d', value)
    changed[field] = event[field]
  end
end
return restate_event(shard, REPAIRED_KIND, ARGV[4], event)
