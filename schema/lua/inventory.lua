-- What the scripts that decide about bookings share: events with their stock and allowances, slots with their bookings,
-- each as the batch sees it. Everything is read once a call, changed here, and written by `write_inventory`.
--
-- KEYS[5..]  event hashes, each followed by its customers hash; and slot hashes; each once, in any order
-- ARGV[4]    how many requests
-- ARGV[5..]  one packed string a request: which key is its event's (u16), which its slot's (u16), event id .. booking id
--            (32 bytes), and what the script says
--
-- A key that is missing although another shows that it was there is `lost`: nothing of the call is decided then. So is one of
-- another type, which is asked for under `pcall`, and one with a counter that is no number: an error would end the call and tell
-- nobody.

local IMAGE_VERSION = 1
local HEADER = '>BBBBI8I8I4I8'   -- version, state, first state, items, created, expires, epoch, sequence
local HELD, CONFIRMED, CANCELLED, EXPIRED = 1, 2, 3, 4
local CUSTOMER_AT, FINGERPRINT_AT, ITEMS_AT = 33, 49, 65 -- in an image, behind its header
local CUSTOMER_FIELD = 12        -- so many bytes of the customer hash name the customer's counters
local SUBJECT_AT = 5             -- where a request has its event id .. booking id,
local BOOKING_AT = 21            -- of that the booking id,
local FIELD_AT = 27              -- the end of that, under which the booking lies in its slot,
local REST_AT = 37               -- and the script's own part
local TIME = 6                   -- so many bytes of a booking's id are its time

local events, slots = {}, {}
local lost

-- Notes the counters of a ticket type; nil where one of them is missing.
local function note_stock(event, ordinal, cap, held, sold, limit)
  cap, held, sold = tonumber(cap), tonumber(held), tonumber(sold)
  if cap and held and sold and limit then
    local stock = { cap = cap, held = held, sold = sold, limit = optional(limit) }
    event.stock[ordinal] = stock
    return stock
  end
  if ordinal < event.types then lost = event.key end
end

-- The counters of a ticket type; nil where one of them is missing.
local function load_stock(event, ordinal)
  local stock = event.stock[ordinal]
  if stock then return stock end
  local of = type_fields(ordinal)
  return note_stock(event, ordinal, unpack(redis.call('HMGET', event.key, of.cap, of.held, of.sold, of.limit)))
end

-- The event at a key, with the counters of one ticket type; nil where a key of the inventory is missing. An event of which
-- nothing is there was not lost: one that is long over is not restored.
local function load_event(at, ordinal)
  local event = events[at]
  if event then return event end
  local key, customers, of = KEYS[at], KEYS[at + 1], type_fields(ordinal)
  local read = redis.pcall('HMGET', key, 'status', 'open', 'close', 'limit', 'types', of.cap, of.held, of.sold, of.limit)
  local types = tonumber(read[5])
  if not (read[1] and read[2] and read[3] and read[4] and types) then
    if redis.call('EXISTS', key, customers) > 0 then lost = key end
    return nil
  end
  event = {
    at = at, key = key, customers = customers, status = read[1], open = optional(read[2]), close = optional(read[3]),
    limit = optional(read[4]), types = types, stock = {}, changed = {}, used = {}, moved = {},
  }
  note_stock(event, ordinal, unpack(read, 6))
  events[at] = event
  return event
end

-- How many tickets a customer has, of the event (its field) or of one type (field .. ordinal). The empty field is written
-- at publication: where it is missing, the counters are lost and nil is the answer.
local function allowance_used(event, field)
  local used = event.used[field]
  if used then return used end
  if event.has_customers then
    used = redis.call('HGET', event.customers, field)
  else
    local read = redis.pcall('HMGET', event.customers, '', field)
    if not read[1] then
      lost = event.customers
      return nil
    end
    event.has_customers, used = true, read[2]
  end
  used = tonumber(used or 0)
  if not used then lost, used = event.customers, 0 end
  event.used[field] = used
  return used
end

-- The value of a field of a slot, or nil where there is none: under the end of a booking's id lie the time of its id and its
-- image. Each slot that was written has an empty field, too. Where that is missing the customers hash is asked: if it knows the
-- slot, that is lost, and an absent field says nothing. Nor does the customers hash without its own empty field, which is lost
-- where anything of the event is there.
local function read_slot(event_at, at, field)
  local slot = slots[at]
  local value
  if slot then
    value = slot.fields[field]
    if value == nil and not slot.is_no_hash then value = redis.call('HGET', KEYS[at], field) end
  else
    local read = redis.pcall('HMGET', KEYS[at], '', field)
    slot = { is_no_hash = read.err, was_written = read[1], fields = {}, set = { 'HSET', KEYS[at] } }
    slots[at] = slot
    value = read[2]
  end
  slot.fields[field] = value
  if value then return value end
  if slot.was_written then return nil end
  local event, customers = KEYS[event_at], KEYS[event_at + 1]
  local marks = redis.pcall('HMGET', customers, '', slot_number(event_at, at))
  local is_lost = marks[2] or slot.is_no_hash
  if (is_lost or not marks[1]) and redis.call('EXISTS', event, customers) > 0 then lost = is_lost and KEYS[at] or customers end
end

-- Behind read_slot. With the first booking that is written into a slot, the event notes that the slot is there.
local function write_slot(event, at, field, value)
  local slot = slots[at]
  local set = slot.set
  if not slot.was_written then
    slot.was_written = true
    set[3], set[4] = '', '1'
    event.first_written = event.first_written or {}
    event.first_written[#event.first_written + 1] = slot_number(event.at, at)
  end
  slot.fields[field] = value
  local n = #set
  set[n + 1], set[n + 2] = field, value
end

-- What a request is about: event id .. booking id; and of the booking's id its time, and the field that it lies under.
local function subject_of(request) return string.sub(request, SUBJECT_AT, REST_AT - 1) end
local function time_of(request) return string.sub(request, BOOKING_AT, FIELD_AT - 1) end
local function field_of(request) return string.sub(request, FIELD_AT, REST_AT - 1) end

-- Behind booking_of, or where nothing lies under the field.
local function write_image(event, slot_at, request, image)
  write_slot(event, slot_at, field_of(request), time_of(request) .. image)
end

-- `count` items, packed from a place on, as a list that nobody changes: ordinal, quantity, ordinal, quantity ... Most bookings of
-- a batch are of the same few.
local parsed = {}
local function parse_items(packed, from, count)
  local items = string.sub(packed, from, from + 3 * count - 1)
  local taken = parsed[items]
  if taken then return taken end
  taken = {}
  parsed[items] = taken
  for at = from, from + 3 * (count - 1), 3 do
    local ordinal, high, low = string.byte(packed, at, at + 2)
    local n = #taken
    taken[n + 1], taken[n + 2] = ordinal, high * 256 + low
  end
  return taken
end

-- Whether the items may be taken now: nil, or the letter of the refusal. Changes nothing. `counted` says that the
-- stock and the allowance hold these very items already.
local function check_take(shard, event, customer, taken, counted)
  if not on_sale(event, shard.now) then return 'N' end
  local total, used = 0, allowance_used(event, customer)
  if not used then return 'U' end
  local is_short = false
  for i = 1, #taken, 2 do
    local stock = load_stock(event, taken[i])
    if not stock then return 'U' end
    if not counted then
      total = total + taken[i + 1]
      is_short = is_short or stock.cap - stock.held - stock.sold < taken[i + 1]
    end
  end
  if is_short then return 'S' end
  if event.limit and used + total > event.limit then return 'L' end
  for i = 1, #taken, 2 do
    local limit = event.stock[taken[i]].limit
    local extra = counted and 0 or taken[i + 1]
    if limit and allowance_used(event, customer .. string.char(taken[i])) + extra > limit then return 'L' end
  end
end

-- The event, where everything that a change of a booking touches is there; otherwise nil.
local function load_inventory(event_at, booking)
  local event = load_event(event_at, booking.taken[1])
  if not event or not allowance_used(event, booking.customer) then return nil end
  for i = 1, #booking.taken, 2 do
    if not load_stock(event, booking.taken[i]) then return nil end
  end
  return event
end

local function move(event, field, amount)
  event.used[field] = allowance_used(event, field) + amount
  event.moved[field] = true
end

-- Moves a customer's allowance by sign * the items.
local function move_allowance(event, customer, taken, sign)
  local total = 0
  for i = 1, #taken, 2 do
    total = total + taken[i + 1]
    if event.stock[taken[i]].limit then move(event, customer .. string.char(taken[i]), sign * taken[i + 1]) end
  end
  move(event, customer, sign * total)
end

-- counter is 'held' or 'sold'.
local function move_stock(event, taken, counter, sign)
  for i = 1, #taken, 2 do
    local stock = event.stock[taken[i]]
    stock[counter] = stock[counter] + sign * taken[i + 1]
    event.changed[type_fields(taken[i])[counter]] = stock[counter]
  end
end

-- Appends a decision about a booking: its whole image, and the totals of the ticket types that it touched.
local function decide_booking(shard, kind, subject, image, event, taken)
  local totals = ''
  for i = 1, #taken, 2 do
    local stock = event.stock[taken[i]]
    totals = totals .. struct.pack('>I4I4I4', stock.cap, stock.held, stock.sold)
  end
  decide(shard, kind, subject, image, totals)
end

-- The booking that an image describes, or nil where no script wrote that. One that is shorter than it says would end the call
-- with an error: for all who share it, and for every hold that is due with it, again and again.
local function parse_image(image)
  if #image < ITEMS_AT then return nil end
  local version, state, first, count, created, expires = struct.unpack(HEADER, image)
  local payment_at = ITEMS_AT + 3 * count
  if version ~= IMAGE_VERSION or state < HELD or state > EXPIRED or count == 0 or #image <= payment_at then return nil end
  local tail_at = payment_at + 2 + struct.unpack('>H', image, payment_at)
  if #image < tail_at then return nil end
  return {
    image = image, state = state, first = first, count = count, created = created, expires = expires,
    customer = string.sub(image, CUSTOMER_AT, CUSTOMER_AT + CUSTOMER_FIELD - 1),
    taken = parse_items(image, ITEMS_AT, count),
    asked = string.sub(image, CUSTOMER_AT, payment_at - 1),
    payment = string.sub(image, payment_at + 2, tail_at - 1),
    tail = string.sub(image, tail_at),
  }
end

-- The booking that a request names; or nil and the request's answer: M where there is none, U where what lies in its place cannot be
-- read, so that nobody knows whether it is that booking.
local function booking_of(event_at, slot_at, request)
  local value = read_slot(event_at, slot_at, field_of(request))
  if not value then return nil, 'M' end
  local booking = parse_image(string.sub(value, TIME + 1))
  if not booking then return nil, 'U' end
  if string.sub(value, 1, TIME) ~= time_of(request) then return nil, 'M' end
  return booking
end

-- An image with the position of this change; `rest` is what stands behind the header.
local function pack_image(shard, state, first, count, created, expires, rest)
  return struct.pack(HEADER, IMAGE_VERSION, state, first, count, created, expires, shard.epoch, shard.seq) .. rest
end

-- The image of a booking that was there before, as it is now.
local function repack_image(shard, booking)
  local rest = booking.asked .. struct.pack('>Hc0', #booking.payment, booking.payment) .. booking.tail
  return pack_image(shard, booking.state, booking.first, booking.count, booking.created, booking.expires, rest)
end

local schedule, unschedule = {}, {}

-- Redis would write a number with 17 digits, which takes it longer. Most customers have the same few tickets.
local decimals = {}
local function decimal(number)
  local text = decimals[number]
  if not text then
    text = string.format('%d', number)
    decimals[number] = text
  end
  return text
end

-- Counters of customers that reach zero are removed.
local function write_event(event)
  local set = { 'HSET', event.key }
  for field, count in pairs(event.changed) do
    local n = #set
    set[n + 1], set[n + 2] = field, decimal(count)
  end
  if #set > 2 then redis.call(unpack(set)) end
  local used, gone = { 'HSET', event.customers }, { 'HDEL', event.customers }
  for field in pairs(event.moved) do
    local count = event.used[field]
    if count > 0 then
      local n = #used
      used[n + 1], used[n + 2] = field, decimal(count)
    else
      gone[#gone + 1] = field
    end
  end
  for _, number in ipairs(event.first_written or {}) do
    local n = #used
    used[n + 1], used[n + 2] = number, '1'
  end
  if #used > 2 then redis.call(unpack(used)) end
  if #gone > 2 then redis.call(unpack(gone)) end
end

local function write_inventory()
  for _, slot in pairs(slots) do if #slot.set > 2 then redis.call(unpack(slot.set)) end end
  for _, event in pairs(events) do write_event(event) end
  for member, score in pairs(schedule) do redis.call('ZADD', KEYS[4], score, member) end
  for member in pairs(unschedule) do redis.call('ZREM', KEYS[4], member) end
end

-- Decides every request of a batch, in order, and commits. `decide_one` gets the places of a request's keys, its event's and
-- its slot's, and the packed string.
local function decide_batch(shard, decide_one)
  local replies = {}
  for i = 1, tonumber(ARGV[4]) do
    local request = ARGV[4 + i]
    local event_at, slot_at = struct.unpack('>HH', request)
    replies[i] = decide_one(event_at, slot_at, request)
  end
  if lost and not shard.is_fenced then return fence_lost(KEYS[1], KEYS[2], lost) end
  return commit(shard, replies, write_inventory)
end
