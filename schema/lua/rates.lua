-- Shared by the scripts that count requests against rate limits: check_rates.lua and, in front of book.lua,
-- admit.lua. Nothing here depends on a shard.
--
-- The arguments are one packed string (`schema/src/scripts/rate.rs` writes it): how many quotas, then each quota, then for
-- each request how many checks, then each check. A check names a quota, a key and a cost.
--
-- A key holds a packed state with a time to live. Past that time the state says the same as no state at all.
-- All states are read at once before the first request and written at once behind the last, so that requests of one
-- call see each other, and a refusal writes nothing.

local FIXED_WINDOW, SLIDING_WINDOW, TOKEN_BUCKET = 1, 2, 3
local QUOTA = '>BI4I4I8I4'  -- algorithm, limit, window in ms, burst as time: whole microseconds, rest / limit of one
local CHECK = '>BHH'        -- quota, key, cost
local STANDING = '>BI4I4I4' -- refuses, remaining, reset in ms, retry in ms
local U32_MAX = 4294967295

local function clock_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Each algorithm looks at a state without changing it, and answers what a check would find, and what would be
-- stored if it were taken:
-- fits, remaining and reset_ms (untaken), remaining_after and reset_after_ms (taken), retry_ms, state, ttl_ms.
-- A clock that goes back finds the later window still open, and gives nothing away twice.

-- state: number of the window, used in it
local function fixed_window(quota, state, cost, now_us)
  local window = quota.window_ms
  local now = math.floor(now_us / 1000)
  local index, used = math.floor(now / window), 0
  if state then
    local at, count = struct.unpack('>I8I4', state)
    if at >= index then index, used = at, count end
  end
  local left = (index + 1) * window - now
  local fits = used + cost <= quota.limit
  return {
    fits = fits, remaining = quota.limit - used, reset_ms = used > 0 and left or 0, retry_ms = fits and 0 or left,
    remaining_after = quota.limit - used - cost, reset_after_ms = left,
    state = struct.pack('>I8I4', index, used + cost), ttl_ms = left,
  }
end

-- state: number of the window, used in it, used in the one before. What the one before used counts for as much of it
-- as a window that ends now still covers; everything is multiplied by the window, so that no fraction is rounded.
local function sliding_window(quota, state, cost, now_us)
  local window = quota.window_ms
  local now = math.floor(now_us / 1000)
  local index, used, before = math.floor(now / window), 0, 0
  if state then
    local at, count, earlier = struct.unpack('>I8I4I4', state)
    if at >= index then index, used, before = at, count, earlier
    elseif at == index - 1 then before = count end
  end
  local left = (index + 1) * window - now
  local covered = math.min(left, window)
  local room = (quota.limit - used) * window - before * covered
  local fits = cost * window <= room
  local retry = 0
  if not fits then
    local free = quota.limit - used - cost
    if free >= 0 then
      retry = left - math.floor(free * window / before)
    else
      -- Not before the window has ended, and then only once enough of what it used has left the view.
      retry = left + math.max(0, window - math.floor((quota.limit - cost) * window / used))
    end
  end
  local reset = used > 0 and left + window or (before > 0 and left or 0)
  return {
    fits = fits, remaining = math.floor(room / window), reset_ms = reset, retry_ms = retry,
    remaining_after = math.floor((room - cost * window) / window), reset_after_ms = left + window,
    state = struct.pack('>I8I4I4', index, used + cost, before), ttl_ms = left + window,
  }
end

-- GCRA. state: the time at which the bucket is full again, as whole microseconds and a rest in parts of `limit`, so
-- that no fraction is ever lost.
local function token_bucket(quota, state, cost, now_us)
  local full, rest = now_us, 0
  if state then
    local at, part = struct.unpack('>I8I4', state)
    if at >= now_us then full, rest = at, part end
  end
  local limit, window_us = quota.limit, quota.window_ms * 1000
  local sum = rest + cost * window_us
  local rest_after = math.fmod(sum, limit)
  local full_after = full + (sum - rest_after) / limit
  local over_us, over_rest = full_after - now_us - quota.burst_us, rest_after - quota.burst_rest
  local fits = over_us < 0 or (over_us == 0 and over_rest <= 0)
  -- The room in the bucket, in time, multiplied by the limit and divided by the window. The product has more than 53 bits: whole
  -- windows of room are worth the limit each, and of the rest the limit is multiplied in two halves.
  local function remaining(at, part)
    local room = quota.burst_us - (at - now_us)
    local windows = math.floor(room / window_us)
    local within, high = room - windows * window_us, math.floor(limit / 1024)
    local tokens = math.floor(within * high / window_us)
    local rest = (within * high - tokens * window_us) * 1024 + within * (limit - high * 1024)
    return windows * limit + tokens * 1024 + math.floor((rest + quota.burst_rest - part) / window_us)
  end
  local function ms(at, part) return math.ceil((at - now_us + (part > 0 and 1 or 0)) / 1000) end
  return {
    fits = fits, remaining = remaining(full, rest), reset_ms = ms(full, rest),
    remaining_after = remaining(full_after, rest_after), reset_after_ms = ms(full_after, rest_after),
    retry_ms = fits and 0 or math.ceil((over_us + (over_rest > 0 and 1 or 0)) / 1000),
    state = struct.pack('>I8I4', full_after, rest_after), ttl_ms = ms(full_after, rest_after),
  }
end

local LOOK = { [FIXED_WINDOW] = fixed_window, [SLIDING_WINDOW] = sliding_window, [TOKEN_BUCKET] = token_bucket }

local function pack_standing(refuses, remaining, reset_ms, retry_ms)
  return struct.pack(STANDING, refuses and 1 or 0, math.max(0, remaining),
    math.min(reset_ms, U32_MAX), math.min(retry_ms, U32_MAX))
end

-- The quotas, the position of the first request's checks, and the state of every key of `keys` as this call sees it.
local function open_rates(packed, keys)
  local rates = { packed = packed, keys = keys, quotas = {}, states = {}, written = {}, now_us = clock_us() }
  local count, at = struct.unpack('>B', packed)
  for i = 1, count do
    local quota = {}
    quota.algorithm, quota.limit, quota.window_ms, quota.burst_us, quota.burst_rest, at = struct.unpack(QUOTA, packed, at)
    rates.quotas[i] = quota
  end
  rates.at = at
  if #keys > 0 then
    local values = redis.call('MGET', unpack(keys))
    for i = 1, #keys do rates.states[i] = values[i] end
  end
  return rates
end

-- The next request's checks against what the requests before it left: what each finds, and whether all fit.
local function look_at_rates(rates)
  local count, at = struct.unpack('>B', rates.packed, rates.at)
  local found, all_fit = {}, true
  for i = 1, count do
    local number, key, cost
    number, key, cost, at = struct.unpack(CHECK, rates.packed, at)
    local quota = rates.quotas[number]
    found[i] = LOOK[quota.algorithm](quota, rates.states[key], cost, rates.now_us)
    found[i].key = key
    all_fit = all_fit and found[i].fits
  end
  rates.at = at
  return found, all_fit
end

-- All or nothing: takes what every check asks for. Returns the standings as they are then.
local function take_rates(rates, found)
  local out = { string.char(#found) }
  for i, check in ipairs(found) do
    rates.states[check.key] = check.state
    rates.written[check.key] = check.ttl_ms
    out[i + 1] = pack_standing(false, check.remaining_after, check.reset_after_ms, 0)
  end
  return table.concat(out)
end

-- Takes nothing. Returns the standings as they were.
local function leave_rates(found)
  local out = { string.char(#found) }
  for i, check in ipairs(found) do
    out[i + 1] = pack_standing(not check.fits, check.remaining, check.reset_ms, check.retry_ms)
  end
  return table.concat(out)
end

-- SET takes the place of whatever is there: it cannot fail halfway.
local function write_rates(rates)
  for key, ttl_ms in pairs(rates.written) do
    redis.call('SET', rates.keys[key], rates.states[key], 'PX', math.max(1, ttl_ms))
  end
end
