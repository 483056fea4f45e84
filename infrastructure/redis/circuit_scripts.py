"""What Redis does in one step for circuits.

A provider's keys share its name as their hash tag. One hash has all its models' circuits; each field begins with the
model's name.
"""

from infrastructure.redis.scripting import Script

CHANGE = Script("""
local model = ARGV[8] .. ':'
local now, stored = redis.call('TIME'), redis.call('HGET', KEYS[1], model .. 'version')
local later = math.max(now[1] * 1000000 + now[2], tonumber(stored or 0) + 1)
local version = string.format('%.0f', later)
redis.call('HSET', KEYS[1], model .. 'version', version, model .. 'state', ARGV[1], model .. 'since', ARGV[2])
redis.call('HSET', KEYS[1], model .. 'until', ARGV[3], model .. 'instance', ARGV[4])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
if ARGV[1] ~= 'half_open' then redis.call('DEL', KEYS[2]) end
local said = table.concat({version, ARGV[4], ARGV[1], ARGV[3], ARGV[7]}, ' ')
redis.call('PUBLISH', ARGV[6], 'circuit ' .. said)
return later
""")
"""KEYS circuit, probe; ARGV state, since, until (Unix seconds), instance, ttl_ms, channel, circuit, model.

The version.

It grows by the server's clock: a circuit of which nothing is kept any more must not seem older than it was.
"""

TAKE_PROBE = Script("""
local stored = redis.call('HMGET', KEYS[1], ARGV[5] .. ':version', ARGV[5] .. ':instance')
if stored[2] ~= ARGV[1] and tonumber(stored[1] or 0) > tonumber(ARGV[2]) then return 0 end
if redis.call('GET', KEYS[2]) == ARGV[3] then return 1 end
return redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4]) and 1 or 0
""")
"""KEYS circuit, probe; ARGV instance, the version it knows, token, lease_ms, model.

Whether it may probe, asked twice or not. Not while another does, nor before it has heard of the circuit's last change.
"""

FREE_PROBE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")
"""KEYS probe; ARGV token."""
