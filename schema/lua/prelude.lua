-- Shared by every script that decides. identity.lua and this text are placed in front of the script's own when that
-- is loaded; those that decide about bookings have event.lua and inventory.lua in between.
--
-- A deciding script first decides everything, looking at what it has decided before, and then calls `commit` once.
-- Requests of one batch therefore see each other, and nothing reaches the keyspace before the whole batch has been
-- decided: Redis does not roll a failed script back.
--
-- KEYS[1] shard        hash: epoch, seq, last_epoch (of the decision at seq), clock, head_ms,
--         written, trimmed, conf_epoch, conf_seq; expiry, since the expiry set has its empty member; lost, a key that was
--         found to be missing, until it is restored
-- KEYS[2] certificate  string: run_id:master_replid:epoch, written by recovery only
-- KEYS[3] outbox       stream of frames, entry id = epoch-(sequence of the frame's last decision)
-- KEYS[4] expiry       sorted set: event id .. booking id, scored by the hold's expiry in milliseconds; and an empty
--         member that is never due, by whose absence the loss of the set is known
-- ARGV[1..3]           bounds of the outbox: frames, bytes, age in milliseconds

local FRAME_VERSION = 1

-- The kinds of decisions, as in `schema/src/record/mod.rs`.
local BOOKED_KIND, HELD_KIND, CONFIRMED_KIND, CANCELLED_KIND, EXPIRED_KIND, RESTATED_KIND = 1, 2, 3, 4, 5, 6
local PUBLISHED_KIND, AMENDED_KIND, CAPACITY_CHANGED_KIND, PAUSED_KIND, RESUMED_KIND, CLOSED_KIND = 16, 17, 18, 19, 20, 21
local EVENT_RESTATED_KIND, REPAIRED_KIND = 22, 23

-- The shard as it stands, or nil where it was never initialised, or is lost.
local function read_shard()
  local s = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'clock', 'head_ms', 'written', 'trimmed')
  for i = 1, 6 do if not s[i] then return nil end end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local frames = redis.call('XLEN', KEYS[3])
  local head = tonumber(s[4])
  now = math.max(now, tonumber(s[3]))
  return {
    epoch = tonumber(s[1]), seq = tonumber(s[2]), now = now, written = tonumber(s[5]), frames = frames, entries = { '' },
    outbox_full = frames >= tonumber(ARGV[1]) or tonumber(s[5]) - tonumber(s[6]) >= tonumber(ARGV[2])
      or (frames > 0 and now - head > tonumber(ARGV[3])),
  }
end

-- The shard, or nil where it may not decide anything.
local function open_shard()
  local shard = read_shard()
  if shard and is_certified(KEYS[2], shard.epoch) then return shard end
end

local function next_sequence(shard)
  shard.seq = shard.seq + 1
end

-- Appends a decision to the frame, of which the first entry is kept for its head: its kind and sequence, the ids that it is
-- about, its body with the length in front, and the totals of the ticket types that a booking touched.
local function decide(shard, kind, subject, body, totals)
  local entries = shard.entries
  local n = #entries
  entries[n + 1] = struct.pack('>BI8c0I4', kind, shard.seq, subject, #body)
  entries[n + 2] = body
  entries[n + 3] = totals
end

-- Writes what was decided: the frame and the shard's accounts.
local function write_frame(shard)
  if #shard.entries == 1 then return end
  shard.entries[1] = struct.pack('>BI4I8', FRAME_VERSION, shard.epoch, shard.now)
  local frame = table.concat(shard.entries)
  shard.written = shard.written + #frame
  local now, written = string.format('%d', shard.now), string.format('%d', shard.written)
  redis.call('XADD', KEYS[3], string.format('%d-%d', shard.epoch, shard.seq), 'f', frame, 't', now, 'w', written)
  local set = { 'HSET', KEYS[1], 'seq', string.format('%d', shard.seq), 'last_epoch', shard.epoch, 'clock', now,
    'written', written }
  if shard.frames == 0 then set[11], set[12] = 'head_ms', now end
  redis.call(unpack(set))
end

-- The only place that writes; `write_rest` writes what the script keeps beside the log. A failure in the middle leaves
-- the shard half written: its certificate goes, so that nothing is sold from it before recovery has put it right.
local function commit(shard, replies, write_rest)
  local ok, failure = pcall(function()
    write_rest()
    write_frame(shard)
  end)
  if ok then return replies end
  redis.call('DEL', KEYS[2])
  if type(failure) == 'table' then failure = failure.err end
  return redis.error_reply('WRITEFAILED the shard was fenced: ' .. tostring(failure))
end
