-- Counts requests against rate limits: a batch, in order, in one atomic step, by this Redis' clock.
--
-- KEYS     one a subject and quota, see rates.lua
-- ARGV[1]  how many requests
-- ARGV[2]  quotas and checks, see rates.lua
--
-- Returns one string a request: how many checks (1 byte), then each one's standing (13 bytes): whether it refuses,
-- what remains, after how many milliseconds all of it is back, after how many this request would be allowed.
-- A request is refused where one of its checks refuses, and then takes nothing from the others.

local rates = open_rates(ARGV[2], KEYS)
local replies = {}
for i = 1, tonumber(ARGV[1]) do
  local found, all_fit = look_at_rates(rates)
  replies[i] = all_fit and take_rates(rates, found) or leave_rates(found)
end
write_rates(rates)
return replies
