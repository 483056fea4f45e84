"""What Redis does in one step for circuits. A provider's keys share its name as their hash tag."""

from infrastructure.redis.client import Script

CHANGE = Script("""
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'since', ARGV[2], 'until', ARGV[3], 'instance', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if ARGV[1] ~= 'half_open' then redis.call('DEL', KEYS[2]) end
local said = table.concat({version, ARGV[4], ARGV[1], ARGV[3], ARGV[7]}, ' ')
redis.call('PUBLISH', ARGV[6], 'circuit ' .. said)
return version
""")
"""KEYS circuit, probe; ARGV state, since, until (Unix seconds), instance, ttl_ms, channel, provider: the version."""

TAKE_PROBE = Script("""
local stored = redis.call('HMGET', KEYS[1], 'version', 'instance')
if stored[2] ~= ARGV[1] and tonumber(stored[1] or 0) > tonumber(ARGV[2]) then return 0 end
return redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4]) and 1 or 0
""")
"""KEYS circuit, probe; ARGV instance, the version it knows, token, lease_ms: whether it may probe.

Not while another does, nor before it has heard of the circuit's last change.
"""

FREE_PROBE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")
"""KEYS probe; ARGV token."""
