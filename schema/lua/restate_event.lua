-- Says an event once more, as it is: its whole image with all totals goes into the log at a new position. PostgreSQL
-- takes name, times, limits, status and capacities from it, and compares its counts with the totals.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5] event hash
-- ARGV[4] event id (16 bytes)
--
-- Returns {outcome, the event hash as a JSON object, epoch, sequence}: C restated, O outbox full,
-- U the event or a field of it is missing, or a number of it is none. Only C writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end
local event = read_restated()
if not event then return refuse('U') end
if shard.outbox_full then return refuse('O') end
return restate_event(shard, EVENT_RESTATED_KIND, ARGV[4], event)
