"""What Redis does in one step. Every script's keys share the hash tag of one question, so they are in one slot."""

from infrastructure.redis.scripting import Script

OWNED, HELD, FENCED, GONE, BEHIND, ENDED, LAPSED = 1, 0, -1, -2, -3, -4, -5
"""What scripts answer first: done; another has the lease; a later epoch leads; another generation has the lease;
earlier records miss; the generation is sealed; there is no lease, and no request to make it anew from."""

CLAIM = Script("""
local held = redis.call('HMGET', KEYS[1], 'id', 'epoch', 'owner', 'is_closed')
if held[1] == ARGV[1] then return {1, 1} end
if held[1] and not held[4] then
    redis.call('HDEL', KEYS[1], 'unfollowed_ms')
    redis.call('SET', KEYS[3], 1, 'PX', ARGV[6])
    return {0, held[1], held[2], held[3]}
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'epoch', 1, 'owner', ARGV[2], 'request', ARGV[5], 'unfollowed_ms', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('XADD', KEYS[2], '1-0', 'r', ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {1, redis.call('EXISTS', KEYS[4])}
""")
"""KEYS lease, log, followed, stored answer; ARGV id, owner, lease_ms, first record, request, followed_ms: claimed, and
whether an answer is stored, or who holds it."""

JOIN = Script("""
local held = redis.call('HMGET', KEYS[1], 'id', 'epoch', 'owner', 'is_closed')
if not held[1] then return {} end
redis.call('HDEL', KEYS[1], 'unfollowed_ms')
redis.call('SET', KEYS[2], 1, 'PX', ARGV[1])
return {held[1], held[2], held[3], held[4] or ''}
""")
"""KEYS lease, followed; ARGV followed_ms: who leads what (id, epoch, owner, closed or not), if anybody."""

READ = Script("""
local held = redis.call('HMGET', KEYS[2], 'id', 'request')
local told, size, from, page = {}, 0, ARGV[2], {}
repeat
    page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 32)
    for _, entry in ipairs(page) do
        if size >= tonumber(ARGV[3]) and #told > 1 then return {1, '', told} end
        told[#told + 1] = {entry[1], entry[2][2]}
        size = size + #entry[2][2] + 64
        from = '(' .. entry[1]
    end
until #page < 32
return {0, held[1] == ARGV[1] and held[2] or '', told}
""")
"""KEYS log, lease; ARGV id, first entry, bytes: two records at least, and no more than those bytes if they are not the
last ones: whether there are more, at the end the request of who leads it under that lease, and the records (name and
value). A record counts as 64 bytes more than it is."""

APPEND = Script("""
local held = redis.call('HMGET', KEYS[1], 'id', 'epoch', 'owner')
local length, first, count = redis.call('XLEN', KEYS[2]), tonumber(ARGV[4]), #ARGV - 9
if held[1] then
    if held[1] ~= ARGV[1] then return {-2} end
    if held[2] ~= ARGV[2] then return {-1, held[2], held[3]} end
else
    if length > first then
        local at = (first + 1) .. '-0'
        local there = redis.call('XRANGE', KEYS[2], at, at)
        if count == 0 or not there[1] or there[1][2][2] ~= ARGV[10] then return {-1, ARGV[2] + 1, ''} end
        if length >= first + count then return {1} end
    end
    if ARGV[8] == '' then return {-5} end
    redis.call('HSET', KEYS[1], 'id', ARGV[1], 'epoch', ARGV[2], 'owner', ARGV[3], 'request', ARGV[8])
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
if length < first then return {-3, length} end
for i = length - first + 1, count do
    if i == count and ARGV[6] ~= '' then
        redis.call('XADD', KEYS[2], (first + i) .. '-0', 'r', ARGV[9 + i], 's', 1)
    else
        redis.call('XADD', KEYS[2], (first + i) .. '-0', 'r', ARGV[9 + i])
    end
end
if ARGV[6] ~= '' then
    redis.call('PEXPIRE', KEYS[1], ARGV[9])
    redis.call('PEXPIRE', KEYS[2], ARGV[6])
elseif length == 0 then
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
redis.call('PUBLISH', ARGV[7], ARGV[1])
return {1}
""")
"""KEYS lease, log; ARGV id, epoch, owner, number of the first record, lease_ms, keep_ms if the last record seals,
channel, request or nothing, hold_ms, records. Sent again, it does nothing twice. A lease that the server has lost is
there again if the request is given, which may be large and is not sent with every chunk; what another has written in
place of the records means that it leads, or has led to the end. A sealed generation's question stays held for hold_ms,
until RELEASE."""

RELEASE = Script("""
if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {1}
""")
"""KEYS lease; ARGV id: its question can be claimed."""

CLOSE = Script("""
local held = redis.call('HMGET', KEYS[1], 'id', 'unfollowed_ms')
if held[1] ~= ARGV[1] then return {0} end
if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('HDEL', KEYS[1], 'unfollowed_ms')
    return {0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not held[2] then redis.call('HSET', KEYS[1], 'unfollowed_ms', now) end
if now - (held[2] or now) < tonumber(ARGV[2]) then return {0} end
redis.call('HSET', KEYS[1], 'is_closed', 1)
return {1}
""")
"""KEYS lease, followed; ARGV id, unfollowed_ms: nobody has followed since it was claimed, or at any look for so long;
nor will anybody who asks its question. Else, it may be followed: so it may be when the server has lost the lease."""

REOPEN = Script("""
if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('HDEL', KEYS[1], 'is_closed') end
return {1}
""")
"""KEYS lease; ARGV id: who asks its question may follow again."""

TAKE_OVER = Script("""
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if last[1] and #last[1][2] > 2 then return {-4} end
local held = redis.call('HMGET', KEYS[1], 'id', 'epoch', 'owner')
if held[1] and held[1] ~= ARGV[1] then return {-2} end
if held[1] and held[2] ~= ARGV[2] and held[3] ~= ARGV[3] then return {0, held[2], held[3]} end
local epoch = math.max(held[2] or 0, ARGV[2]) + 1
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'epoch', epoch, 'owner', ARGV[3], 'request', ARGV[5])
redis.call('HDEL', KEYS[1], 'unfollowed_ms')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return {1, epoch}
""")
"""KEYS lease, log; ARGV id, epoch of the leader that lapsed, new owner, lease_ms, request: the new epoch, or who was
quicker. Sent again by the same owner, it gives it a later epoch."""
