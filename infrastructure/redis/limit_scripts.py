"""What Redis does in one step for limits. A user's keys share its name as their hash tag.

They go by the server's clock. What they do at a time is in the parts, which tests run at other times.
"""

from infrastructure.redis.scripting import Script

SERVER_TIME = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

EXCHANGE_PART = """
local key, id, number = KEYS[1], 'i:' .. ARGV[1], tonumber(ARGV[2])
local capacity, lease_us = tonumber(ARGV[3]), tonumber(ARGV[5])
local spend, want, ahead, held = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local back, owed, keep = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local per_us = capacity / tonumber(ARGV[4])
local tokens, at, out, lapsed, lapsed_at, others_until, own, gone = capacity, now, 0, 0, 0, now, nil, {}
local stored = redis.call('HGETALL', key)
for i = 1, #stored, 2 do
    if stored[i] == 'tokens' then
        tokens = tonumber(stored[i + 1])
    elseif stored[i] == 'at' then
        at = math.min(tonumber(stored[i + 1]), now + math.ceil(capacity / per_us))
    else
        local n, o, u, s, l = string.match(stored[i + 1], '(%d+) (%d+) (%d+) (%d+) (%d+)')
        local one = {number = tonumber(n), out = tonumber(o), until_us = tonumber(u)}
        one.spent, one.leased = tonumber(s), tonumber(l)
        out = out + one.out
        if one.until_us <= now then
            lapsed, lapsed_at = lapsed + one.out, math.max(lapsed_at, one.until_us)
            gone[#gone + 1] = stored[i]
        elseif stored[i] == id then
            own = one
        elseif one.out > 0 then
            others_until = math.max(others_until, one.until_us)
        end
    end
end
local function fill(to)
    tokens = math.max(tokens, math.min(capacity - out, tokens + math.max(0, to - at) * per_us))
    at = math.max(at, to)
end
if lapsed_at > 0 then fill(math.min(lapsed_at, now)) end
out = out - lapsed
fill(now)
local function answer(spent, leased)
    if tokens + 0.000001 >= 1 then return {spent, leased, string.format('%.17g', tokens), 0} end
    local fills_at = capacity - out - held - leased < 1 and math.max(at, others_until) or at
    local wait_us = math.ceil((1 - tokens) / per_us + fills_at - now)
    return {spent, leased, string.format('%.17g', tokens), wait_us}
end
if own and own.number == number then return answer(own.spent, own.leased) end
if own and own.number > number then return answer(0, 0) end
if own then
    tokens = tokens + math.min(back, math.max(0, own.out - held))
    out = out - own.out
end
tokens = math.min(math.max(0, tokens - owed), math.max(0, capacity - out - held))
local function give(most, left)
    local given = math.min(most, math.max(0, math.floor(tokens - left + 0.000001)))
    tokens = tokens - given
    return given
end
local spent, leased = give(spend, keep), give(want, keep)
leased = leased + give(ahead, math.max(1, keep))
if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
local record = string.format('%.0f %.0f %.0f %.0f %.0f', number, held + leased, now + lease_us, spent, leased)
redis.call('HSET', key, 'tokens', string.format('%.17g', tokens), 'at', string.format('%.0f', at), id, record)
redis.call('PEXPIRE', key, math.ceil(((capacity - tokens) / per_us + at - now + lease_us) / 1000) + 1000)
return answer(spent, leased)
"""

EXCHANGE = Script(SERVER_TIME + EXCHANGE_PART)
"""KEYS bucket; ARGV instance, number, amount, per_us, lease_us, spend, want, ahead, held, give, owed, keep
(domain/leases.py): what is spent and leased, tokens left, microseconds until there is one.

The bucket is a hash: `tokens` that were there `at`, and for each instance the number of its last exchange, how many
tokens it has out, until when that is remembered, and what it was told. An exchange that comes again is told the same;
one that comes late does nothing. Tokens come back up to what is not out; those of an instance that lapsed are spent.
While others have all of them out, nothing comes back before that lapses; what the asker has, it is to say itself.
A clock that is set back gives nothing before it has caught up, or for as long as an empty bucket takes to fill.
"""

RESERVE_PART = """
local key, id = KEYS[1], 'r:' .. ARGV[1]
local limit, need, budget, cost = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local tokens_field, at_field = 'tokens:' .. ARGV[2], 'at:' .. ARGV[2]
local stored = redis.call('HMGET', key, tokens_field, at_field, 'day', 'usd', id)
local today, at = math.floor(now / 86400000000), now
local day = math.max(today, math.min(today + 1, tonumber(stored[3] or today)))
local is_today = stored[3] and tonumber(stored[3]) == day
local tokens, usd = limit, is_today and tonumber(stored[4]) or 0
if stored[1] then
    local since = math.min(tonumber(stored[2]), now + 60000000)
    at = math.max(now, since)
    tokens = math.min(limit, tonumber(stored[1]) + (at - since) * limit / 60000000)
end
local function answer(reason, wait_us)
    return {reason, string.format('%.17g', tokens), string.format('%.17g', usd), wait_us}
end
if stored[5] then return answer('', 0) end
if limit > 0 and need > 0 and tokens + 0.000001 < need then
    return answer('tokens', math.ceil((need - tokens) * 60000000 / limit + at - now))
end
local function fits(spent)
    return budget < 0 or (spent < budget and spent + cost <= budget + 0.000000001)
end
local function under_way()
    local held, all = 0, is_today and redis.call('HGETALL', key) or {}
    for i = 1, #all, 2 do
        local _, one, _, since = string.match(all[i + 1], '(%S+) (%S+) (%S+) (%S+)')
        if since and now - since < 600000000 then held = held + one end
    end
    return held
end
if not fits(usd) then
    if fits(usd - under_way()) then return answer('held', 1000000) end
    return answer('budget', (day + 1) * 86400000000 - now)
end
tokens, usd = tokens - need, usd + cost
if not is_today then
    for _, field in ipairs(redis.call('HKEYS', key)) do
        if string.sub(field, 1, 2) == 'r:' then redis.call('HDEL', key, field) end
    end
end
redis.call('HSET', key, tokens_field, string.format('%.17g', tokens), at_field, string.format('%.0f', at),
    'day', day, 'usd', string.format('%.17g', usd),
    id, table.concat({ARGV[3], ARGV[5], ARGV[2], string.format('%.0f', now)}, ' '))
redis.call('PEXPIRE', key, 172800000)
return answer('', 0)
"""

RESERVE = Script(SERVER_TIME + RESERVE_PART)
"""KEYS usage; ARGV id, tokens a minute (0: no limit), tokens needed, budget of the day (-1: none), cost: what forbids
it (nothing, tokens, budget, or held: the budget until answers under way have ended), tokens left, USD spent today,
microseconds to wait.

What needs no tokens is not forbidden for want of them. The hash has, for each limit, the tokens
that were there at a time, `usd` spent on `day` (days since 1970, UTC), and each reservation by id, of the day's. One of
more than ten minutes ago has lost its instance: nobody waits for its end.
"""

SETTLE_PART = """
local key, id = KEYS[1], 'r:' .. ARGV[1]
local reserved = redis.call('HGET', key, id)
if not reserved then return 0 end
redis.call('HDEL', key, id)
local need, cost, limit = string.match(reserved, '(%S+) (%S+) (%S+)')
redis.call('HINCRBYFLOAT', key, 'tokens:' .. limit, string.format('%.17g', need - ARGV[2]))
redis.call('HINCRBYFLOAT', key, 'usd', string.format('%.17g', ARGV[3] - cost))
return 1
"""

SETTLE = Script(SETTLE_PART)
"""KEYS usage; ARGV id, tokens used, USD spent: 1 if it was reserved. Sent again, it does nothing twice; nor after the
day of its reservation, whose estimate then stands."""
