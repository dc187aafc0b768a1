-- Stands between inventory.lua, rates.lua and book.lua where requests of the batch are subject to rate limits: the
-- limits are decided in the very call that books.
--
-- KEYS beyond those of book.lua   one a subject and quota, see rates.lua
-- ARGV[#ARGV - 1]                 quotas and checks of each request, see rates.lua
-- ARGV[#ARGV]                     how many keys are the limits'
--
-- In front of each reply of book.lua stand the standings (see check_rates.lua). Another outcome is T: refused by a
-- limit, nothing was decided and nothing taken.
-- A key that made a booking before is answered, and not counted: a retry after a time-out costs its customer nothing.
-- Nor is a request counted that fails for a reason of ours (outbox full, inventory unverified).

local decide_unlimited = decide_batch

local function decide_batch(shard, decide_one)
  local beyond = tonumber(ARGV[#ARGV])
  local rates = open_rates(ARGV[#ARGV - 1], { unpack(KEYS, #KEYS - beyond + 1) })
  local function admit(event_at, slot_at, request)
    local found, all_fit = look_at_rates(rates)
    local replays = read_slot(event_at, slot_at, field_of(request))
    if not (all_fit or replays) then return leave_rates(found) .. 'T' end
    local reply = decide_one(event_at, slot_at, request)
    local outcome = string.sub(reply, 1, 1)
    if replays or outcome == 'O' or outcome == 'U' then return string.char(0) .. reply end
    return take_rates(rates, found) .. reply
  end
  local replies = decide_unlimited(shard, admit)
  -- Nothing was decided of a shard that has lost a key, so that nothing is counted either.
  if not replies.err then write_rates(rates) end
  return replies
end
