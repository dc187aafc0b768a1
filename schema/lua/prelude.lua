-- Shared by every script that decides. identity.lua and this text are placed in front of the script's own when that
-- is loaded.
--
-- A deciding script reads through `view`, writes into `view`, and calls `commit` once at its end. Requests of one
-- batch therefore see each other, and nothing reaches the keyspace before the whole batch has been decided: Redis
-- does not roll a failed script back.
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
local IMAGE_VERSION = 1
local HEADER = '>BBBBI8I8I4I8'   -- version, state, first state, items, created, expires, epoch, sequence
local HELD, CONFIRMED, CANCELLED, EXPIRED = 1, 2, 3, 4
local ITEMS_AT = 65              -- header (32), customer hash (16), fingerprint (16)
local CUSTOMER_FIELD = 12        -- so many bytes of the customer hash name the customer's counters

local KIND = {
  booked = 1, held = 2, confirmed = 3, cancelled = 4, expired = 5, restated = 6,
  published = 16, amended = 17, capacity_changed = 18, paused = 19, resumed = 20, closed = 21, event_restated = 22,
  repaired = 23,
}

-- What the fields of a ticket type are called in the event's hash. Each name is joined once a call: writing a number costs
-- more than what is done with the field.
local TYPE_FIELDS = {}
local function type_fields(ordinal)
  local fields = TYPE_FIELDS[ordinal]
  if not fields then
    fields = { cap = 'cap' .. ordinal, held = 'held' .. ordinal, sold = 'sold' .. ordinal, limit = 'limit' .. ordinal }
    TYPE_FIELDS[ordinal] = fields
  end
  return fields
end

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
    epoch = tonumber(s[1]), seq = tonumber(s[2]), now = now, written = tonumber(s[5]), frames = frames, entries = {},
    outbox_full = frames >= tonumber(ARGV[1]) or tonumber(s[5]) - tonumber(s[6]) >= tonumber(ARGV[2])
      or (frames > 0 and now - head > tonumber(ARGV[3])),
  }
end

-- The shard, or nil where it may not decide anything.
local function open_shard()
  local shard = read_shard()
  if shard and is_certified(KEYS[2], shard.epoch) then return shard end
end

-- view[key][field] is the value as this batch sees it; false is an absent field.
local view, dirty = {}, {}

local function load(key, ...)
  local hash = view[key]
  if not hash then hash = {}; view[key] = hash end
  local values = redis.call('HMGET', key, ...)
  local fields = {...}
  for i = 1, #fields do
    local field = fields[i]
    if hash[field] == nil then hash[field] = values[i] end
  end
  return hash
end

local function read(key, field)
  local hash = view[key]
  local value = hash and hash[field]
  if value == nil then value = load(key, field)[field] end
  return value
end

-- A value of false removes the field.
local function write(key, field, value)
  view[key] = view[key] or {}
  view[key][field] = value
  dirty[key] = dirty[key] or {}
  dirty[key][field] = true
end

-- A key that is missing although another shows that it was there. Nothing of this call is decided then.
local lost

-- The fields of an event that every sale looks at, or nil where a key of the inventory is missing. An event of which
-- nothing is there was not lost: one that is long over is not restored.
local function load_event(keys)
  local event = view[keys.event]
  if not event or event.status == nil then event = load(keys.event, 'status', 'open', 'close', 'limit', 'types') end
  if event.status and event.open and event.close and event.limit and event.types then return event end
  if redis.call('EXISTS', keys.event, keys.customers) > 0 then lost = keys.event end
end

-- Makes sure that a ticket type's counters are in the view, behind load_event; nil where one of them is missing.
local function load_stock(keys, ordinal)
  local event, of = view[keys.event], type_fields(ordinal)
  if event[of.cap] == nil then load(keys.event, of.cap, of.held, of.sold, of.limit) end
  if event[of.cap] and event[of.held] and event[of.sold] and event[of.limit] then return true end
  if ordinal < tonumber(event.types) then lost = keys.event end
end

-- How many tickets a customer has, of the event (its field) or of one type (field .. ordinal), behind load_event. The
-- empty field is written at publication: where it is missing, the counters are lost and nil is the answer.
local function allowance_used(keys, field)
  local counters = view[keys.customers]
  if not counters or counters[''] == nil then counters = load(keys.customers, '', field) end
  if counters[''] then return tonumber(read(keys.customers, field) or 0) end
  lost = keys.customers
end

-- The number of a slot, which is the field of the customers hash that says whether the slot was ever written.
local function slot_number(keys) return string.match(keys.slot, '^.*:(%d+)$') end

-- The value of a field of a slot, or nil where there is none. Each slot that was written has an empty field, too: where
-- that is missing, the slot is lost, and an absent field says nothing.
local function read_slot(keys, field)
  local slot = view[keys.slot]
  if not slot or slot[''] == nil then slot = load(keys.slot, '', field) end
  local value = read(keys.slot, field)
  if value then return value end
  if not slot[''] and read(keys.customers, slot_number(keys)) then lost = keys.slot end
end

-- Notes that a slot is there, with the first booking that is written into it.
local function mark_slot(keys)
  if view[keys.slot][''] then return end
  write(keys.slot, '', '1')
  write(keys.customers, slot_number(keys), '1')
end

local function on_sale(event, now)
  return event.status == 'on_sale'
    and (event.open == '' or now >= tonumber(event.open))
    and (event.close == '' or now < tonumber(event.close))
end

-- Steps through items: for _, ordinal, quantity in next_item, items, 1 do ... end
local function next_item(items, at)
  if at > #items then return nil end
  return at + 3, struct.unpack('>BH', items, at)
end

-- Whether the items may be taken now: nil, or the letter of the refusal. Writes nothing. `counted` says that the
-- stock and the allowance hold these very items already.
local function check_take(shard, keys, customer, items, counted)
  local event = load_event(keys)
  if not event then return 'U' end
  if not on_sale(event, shard.now) then return 'N' end
  local total = 0
  local used = allowance_used(keys, customer)
  if not used then return 'U' end
  for _, ordinal, quantity in next_item, items, 1 do
    if not load_stock(keys, ordinal) then return 'U' end
    local extra = counted and 0 or quantity
    total = total + extra
    local limit = event[type_fields(ordinal).limit]
    if limit ~= '' and allowance_used(keys, customer .. string.char(ordinal)) + extra > tonumber(limit) then
      return 'L'
    end
  end
  if event.limit ~= '' and used + total > tonumber(event.limit) then return 'L' end
  if counted then return nil end
  for _, ordinal, quantity in next_item, items, 1 do
    local of = type_fields(ordinal)
    if event[of.cap] - event[of.held] - event[of.sold] < quantity then return 'S' end
  end
end

-- Whether everything that a change of a booking touches is there, and in the view.
local function load_inventory(keys, booking)
  if not load_event(keys) or not allowance_used(keys, booking.customer) then return false end
  for _, ordinal in next_item, booking.items, 1 do
    if not load_stock(keys, ordinal) then return false end
  end
  return true
end

local function add(key, field, amount)
  local value = tonumber(read(key, field) or 0) + amount
  write(key, field, value)
  return value
end

-- Moves a customer's allowance by sign * the items; counters that reach zero are removed.
local function move_allowance(keys, customer, items, sign)
  local total = 0
  for _, ordinal, quantity in next_item, items, 1 do
    total = total + quantity
    if view[keys.event][type_fields(ordinal).limit] ~= '' then
      local field = customer .. string.char(ordinal)
      if add(keys.customers, field, sign * quantity) <= 0 then write(keys.customers, field, false) end
    end
  end
  if add(keys.customers, customer, sign * total) <= 0 then write(keys.customers, customer, false) end
end

-- counter is 'held' or 'sold'.
local function move_stock(keys, items, counter, sign)
  for _, ordinal, quantity in next_item, items, 1 do
    add(keys.event, type_fields(ordinal)[counter], sign * quantity)
  end
end

local function totals(keys, items)
  local event, out = view[keys.event], ''
  for _, ordinal in next_item, items, 1 do
    local of = type_fields(ordinal)
    out = out .. struct.pack('>I4I4I4', event[of.cap], event[of.held], event[of.sold])
  end
  return out
end

-- Appends a decision to the frame: its kind and sequence, the event it is about, and the parts of its body.
local function decide(shard, kind, ...)
  local entries = shard.entries
  entries[#entries + 1] = struct.pack('>BI8', KIND[kind], shard.seq)
  for _, part in ipairs({...}) do entries[#entries + 1] = part end
end

local function next_sequence(shard)
  shard.seq = shard.seq + 1
  return shard.seq
end

-- Appends a decision about a booking: its whole image, and the totals of the ticket types that it touched.
local function decide_booking(shard, kind, subject, image, keys, items)
  decide(shard, kind, subject, struct.pack('>I4', #image), image, totals(keys, items))
end

local function parse_image(image)
  local version, state, first, count, created, expires = struct.unpack(HEADER, image)
  local items_end = ITEMS_AT + 3 * count - 1
  return {
    state = state, first = first, count = count, created = created, expires = expires,
    customer = string.sub(image, 33, 32 + CUSTOMER_FIELD), identity = string.sub(image, 33, 64),
    items = string.sub(image, ITEMS_AT, items_end),
    payment = struct.unpack('>Hc0', image, items_end + 1),
    tail = string.sub(image, items_end + 3 + struct.unpack('>H', image, items_end + 1)),
  }
end

-- The image with the position of this change.
local function pack_image(shard, booking)
  return struct.pack(HEADER, IMAGE_VERSION, booking.state, booking.first, booking.count,
      booking.created, booking.expires, shard.epoch, shard.seq)
    .. booking.identity .. booking.items .. struct.pack('>Hc0', #booking.payment, booking.payment) .. booking.tail
end

local schedule, unschedule = {}, {}

local function write_hash(key, fields)
  local set, gone = { 'HSET', key }, { 'HDEL', key }
  for field in pairs(fields) do
    local value = view[key][field]
    if value == false then
      gone[#gone + 1] = field
    else
      set[#set + 1] = field
      set[#set + 1] = value
    end
  end
  if #set > 2 then redis.call(unpack(set)) end
  if #gone > 2 then redis.call(unpack(gone)) end
end

local function write_all(shard)
  for key, fields in pairs(dirty) do write_hash(key, fields) end
  for member, score in pairs(schedule) do redis.call('ZADD', KEYS[4], score, member) end
  for member in pairs(unschedule) do redis.call('ZREM', KEYS[4], member) end
  if #shard.entries == 0 then return end
  local frame = struct.pack('>BI4I8', FRAME_VERSION, shard.epoch, shard.now) .. table.concat(shard.entries)
  shard.written = shard.written + #frame
  redis.call('XADD', KEYS[3], string.format('%d-%d', shard.epoch, shard.seq),
    'f', frame, 't', shard.now, 'w', shard.written)
  redis.call('HSET', KEYS[1], 'seq', shard.seq, 'last_epoch', shard.epoch, 'clock', shard.now, 'written', shard.written)
  if shard.frames == 0 then redis.call('HSET', KEYS[1], 'head_ms', shard.now) end
end

-- The only place that writes. A failure in the middle leaves the shard half written: its certificate goes, so
-- that nothing is sold from it before recovery has put it right.
local function commit(shard, replies)
  local ok, failure = pcall(write_all, shard)
  if ok then return replies end
  redis.call('DEL', KEYS[2])
  if type(failure) == 'table' then failure = failure.err end
  return redis.error_reply('WRITEFAILED the shard was fenced: ' .. tostring(failure))
end

-- Decides every request of a batch, in order, and commits. A request has three keys, event, slot and customers, and
-- `count` arguments, which are given to `decide_one` behind the keys. `beyond` keys at the end are not the requests'.
local function decide_batch(shard, count, decide_one, beyond)
  local replies = {}
  for i = 0, (#KEYS - 4 - (beyond or 0)) / 3 - 1 do
    local k, a = 5 + 3 * i, 4 + count * i
    local keys = { event = KEYS[k], slot = KEYS[k + 1], customers = KEYS[k + 2] }
    replies[i + 1] = decide_one(keys, unpack(ARGV, a, a + count - 1))
  end
  if lost and not shard.is_fenced then return fence_lost(KEYS[1], KEYS[2], lost) end
  return commit(shard, replies)
end
