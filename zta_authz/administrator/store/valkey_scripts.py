"""The Lua scripts of the Valkey store. Each runs atomically on the server, on keys with the hash tag `{zta}`.

    {zta}state    hash: `epoch`, `newest` (the ID of the newest commit) and `schema`; each item as `k:KEY`
    {zta}keys     sorted set of the items' keys, all with score 0
    {zta}stream   stream: the commits, with IDs REVISION-RANDOM
    {zta}t:KEY    a temporary item
    {zta}b:KEY:START:END   hash: the units that each holder reserved

Items share a hash with the epoch, so that nobody can delete them and leave the epoch. The random part of an ID shows
that a failover replaced a commit by another one with the same revision.

Each script begins with the epoch that the caller adopted and the ID of the newest commit that it saw. It returns
`{"forgot"}` if the store does not have them any more.
"""

from __future__ import annotations

from typing import Final

STATE: Final = "{zta}state"
ITEM_KEYS: Final = "{zta}keys"
STREAM: Final = "{zta}stream"
TEMPORARY: Final = "{zta}t:"
RESERVED: Final = "{zta}b:"
SCHEMA_VERSION: Final = 1
FIXED_KEYS: Final = (STATE, ITEM_KEYS, STREAM)
"""`KEYS[1]` to `KEYS[3]` of every script."""

_COMMON: Final = """
local state, keys, stream = KEYS[1], KEYS[2], KEYS[3]
local function number_of(id) return tonumber(string.match(id, '^%d+')) end
local function intact(epoch, seen)
  local found = redis.call('HMGET', state, 'epoch', 'newest')
  if not found[1] or found[1] ~= epoch then return false end
  if number_of(found[2]) < number_of(seen) then return false end
  if seen ~= '0-0' and #redis.call('XRANGE', stream, seen, seen) == 0 then
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
    if #first == 0 or number_of(first[1][1]) <= number_of(seen) then return false end
  end
  return found[2]
end
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000, time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
end
"""

_CHECKED: Final = (
    _COMMON
    + """
local newest = intact(ARGV[1], ARGV[2])
if not newest then return {'forgot'} end
local position = 2
local function argument()
  position = position + 1
  return ARGV[position]
end
"""
)

EPOCH: Final = (
    _COMMON
    + """
-- ARGV: adopted epoch, seen ID, epoch to use if another one is needed, epoch that the caller knows to be lost, schema
local epoch = redis.call('HGET', state, 'epoch')
if not epoch then
  redis.call('DEL', state, keys, stream)
  redis.call('HSET', state, 'epoch', ARGV[3], 'newest', '0-0', 'schema', ARGV[5])
elseif epoch == ARGV[4] or (epoch == ARGV[1] and not intact(ARGV[1], ARGV[2])) then
  redis.call('HSET', state, 'epoch', ARGV[3])
end
return redis.call('HMGET', state, 'epoch', 'newest', 'schema')
"""
)

HEAD: Final = (
    _CHECKED
    + """
local _, text = now()
return {'ok', newest, text}
"""
)

GET: Final = _CHECKED + "return {'ok', redis.call('HGET', state, 'k:' .. argument())}"

SCAN: Final = (
    _CHECKED
    + """
-- ARGV: lowest key, highest key, limit, bytes
local lowest, highest, limit, bytes = argument(), argument(), argument(), tonumber(argument())
local found = redis.call('ZRANGE', keys, lowest, highest, 'BYLEX', 'LIMIT', 0, limit)
local page = {}
for _, key in ipairs(found) do
  local value = redis.call('HGET', state, 'k:' .. key)
  if not value then return {'damaged'} end
  page[#page + 1] = key
  page[#page + 1] = value
  bytes = bytes - #value
  if bytes < 0 then break end
end
if redis.call('ZCARD', keys) + 3 ~= redis.call('HLEN', state) then return {'damaged'} end
return {'ok', page}
"""
)

READ: Final = (
    _CHECKED
    + """
-- ARGV: revision, limit, bytes
local revision, limit, bytes = tonumber(argument()), tonumber(argument()), tonumber(argument())
if revision > number_of(newest) then return {'forgot'} end
local page = {}
local from = string.format('%.0f-0', revision + 1)
while #page < limit and bytes >= 0 do
  local entries = redis.call('XRANGE', stream, from, '+', 'COUNT', math.min(8, limit - #page))
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    page[#page + 1] = entry
    bytes = bytes - #entry[2][4]
  end
  from = '(' .. entries[#entries][1]
end
local first = #page > 0 and number_of(page[1][1]) or number_of(newest) + 1
if first ~= revision + 1 then return {'forgotten', string.format('%.0f', first)} end
return {'ok', page}
"""
)

COMMIT: Final = (
    _CHECKED
    + """
-- ARGV: random part of the ID, number of commits to keep, entry, then the numbers and lists of expectations
-- (key, version), marks (milliseconds; the keys are KEYS[4] and on), deleted keys, and put items (key, value)
local random, retained, entry = argument(), tonumber(argument()), argument()
for _ = 1, tonumber(argument()) do
  local key, version = argument(), argument()
  local value = redis.call('HGET', state, 'k:' .. key)
  if (value and string.match(value, '^%d+') or '0') ~= version then return {'conflict', key} end
end
local marks = tonumber(argument())
for mark = 1, marks do
  if redis.call('EXISTS', KEYS[3 + mark]) == 1 then return {'conflict', string.sub(KEYS[3 + mark], #'{zta}t:' + 1)} end
end
for mark = 1, marks do
  redis.call('SET', KEYS[3 + mark], '', 'PX', argument())
end
local revision = string.format('%.0f', number_of(newest) + 1)
local id = revision .. '-' .. random
for _ = 1, tonumber(argument()) do
  local key = argument()
  redis.call('HDEL', state, 'k:' .. key)
  redis.call('ZREM', keys, key)
end
for _ = 1, tonumber(argument()) do
  local key, value = argument(), argument()
  redis.call('HSET', state, 'k:' .. key, revision .. ':' .. value)
  redis.call('ZADD', keys, 0, key)
end
local _, text = now()
redis.call('XADD', stream, 'MAXLEN', retained, id, 't', text, 'e', entry)
redis.call('HSET', state, 'newest', id)
return {'ok', id, text}
"""
)

REMEMBER: Final = (
    _CHECKED
    + """
-- ARGV: value, milliseconds, 1 to create only
local value, milliseconds, only = argument(), argument(), argument()
if only == '1' then
  return {'ok', redis.call('SET', KEYS[4], value, 'NX', 'PX', milliseconds) and 1 or 0}
end
redis.call('SET', KEYS[4], value, 'PX', milliseconds)
return {'ok', 1}
"""
)

TEMPORARY_VALUE: Final = _CHECKED + "return {'ok', redis.call('GET', KEYS[4])}"

RESERVE: Final = (
    _CHECKED
    + """
-- ARGV: start, end, wanted units, limit, holder
local starts, ends = tonumber(argument()), tonumber(argument())
local want, limit, holder = tonumber(argument()), tonumber(argument()), argument()
local time = now()
if time < starts or time >= ends then return {'closed'} end
local total, own = 0, 0
local held = redis.call('HGETALL', KEYS[4])
for index = 1, #held, 2 do
  local units = tonumber(held[index + 1])
  total = total + units
  if held[index] == holder then own = units end
end
local got = want > 0 and math.min(want, math.max(0, limit - total)) or math.max(want, -own)
if got ~= 0 then
  redis.call('HSET', KEYS[4], holder, string.format('%.0f', own + got))
  redis.call('PEXPIREAT', KEYS[4], string.format('%.0f', math.ceil(ends * 1000)))
end
return {'ok', string.format('%.0f', got)}
"""
)
