"""What Redis does with a conversation in one step; its keys are described in session_store.py."""

from infrastructure.redis.scripting import Script

_USED = """
local function used()
    local is_begun = redis.call('HGET', KEYS[1], 'next') == '0'
    redis.call('PEXPIRE', KEYS[1], is_begun and ARGV[2] or ARGV[1])
end
"""
"""KEYS session; ARGV ttl_ms, ttl_ms of one that has had no turn."""

OPEN = Script(
    _USED
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
if ARGV[3] == '1' then used() end
return {redis.call('PTTL', KEYS[1]), redis.call('HGETALL', KEYS[1])}
"""
)
"""KEYS session; ARGV ttl_ms, ttl_ms of one that has had no turn, whether it is used (1) or only read: time left and
fields, if there is one.
"""

BEGIN = Script(
    _USED
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'birth', ARGV[4], 'version', ARGV[3],
        'first', 0, 'next', 0, 'messages', 0, 'bytes', 0)
end
used()
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], now_ms, KEYS[1])
redis.call('PEXPIRE', KEYS[2], math.max(ARGV[1], ARGV[2]))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now_ms - math.max(ARGV[1], ARGV[2]))
local too_many = redis.call('ZCARD', KEYS[2]) - ARGV[5]
if too_many > 0 then
    for _, oldest in ipairs(redis.call('ZRANGE', KEYS[2], 0, too_many - 1)) do redis.call('DEL', oldest) end
    redis.call('ZREMRANGEBYRANK', KEYS[2], 0, too_many - 1)
end
return redis.call('HGET', KEYS[1], 'birth')
"""
)
"""KEYS session, the owner's sessions; ARGV ttl_ms, ttl_ms of one that has had no turn, version, birth of one that
begins, how many the owner may have: its birth. Sent again, it does nothing twice.
"""

APPEND = Script("""
local key, turn_id, count, turn = KEYS[1], ARGV[3], ARGV[4], ARGV[5]
local held = redis.call('HMGET', key, 'version', 'birth', 'first', 'next', 'messages', 'bytes')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] or redis.call('HEXISTS', key, 'seen:' .. turn_id) == 1 then return 0 end
local first, next = tonumber(held[3]), tonumber(held[4])
if tonumber(ARGV[9]) < first then return 0 end
local messages, bytes, gone = held[5] + count, held[6] + #turn, {}
local function is_too_much() return messages > tonumber(ARGV[6]) or bytes > tonumber(ARGV[7]) end
while first < next and is_too_much() do
    local oldest = redis.call('HMGET', key, 'turn:' .. first, 'count:' .. first, 'id:' .. first)
    messages, bytes = messages - oldest[2], bytes - #oldest[1]
    gone[#gone + 1] = {'turn:' .. first, 'count:' .. first, 'id:' .. first, 'seen:' .. oldest[3]}
    first = first + 1
end
if is_too_much() then
    first, messages, bytes = next + 1, 0, 0
else
    redis.call('HSET', key, 'turn:' .. next, turn, 'count:' .. next, count, 'id:' .. next, turn_id,
        'seen:' .. turn_id, '')
end
for _, fields in ipairs(gone) do redis.call('HDEL', key, unpack(fields)) end
redis.call('HSET', key, 'first', first, 'next', next + 1, 'messages', messages, 'bytes', bytes)
redis.call('PEXPIRE', key, ARGV[8])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], 'XX', time[1] * 1000 + math.floor(time[2] / 1000), key)
redis.call('PEXPIRE', KEYS[2], ARGV[8])
return 1
""")
"""KEYS session, the owner's sessions; ARGV version, birth, turn id, how many messages, the messages, most messages,
most bytes, ttl_ms, place. Sent again, it does nothing twice.
It writes nothing before it has read all: what is damaged stays as it was.
"""

FORGET = Script("""
redis.call('ZREM', KEYS[2], KEYS[1])
return redis.call('DEL', KEYS[1])
""")
"""KEYS session, the owner's sessions: 1 if it was there."""
