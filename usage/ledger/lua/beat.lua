-- A process says that it lives. ARGV[3]: for how long that holds, microseconds. Gives {closed}, or {ok, the ids of its
-- calls, a process that has died (or ""), key, microseconds to wait, key, ...}.
if not is_open then return {'closed'} end
local leases = at .. 'leases'
redis.call('ZADD', leases, now + ARGV[3], ARGV[2])
redis.call('EXPIRE', leases, 86400)
redis.call('EXPIRE', process, 86400)
local dead = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 1)
local answer = {'ok', redis.call('HKEYS', process), dead[1] or ''}
redis.call('ZREMRANGEBYSCORE', at .. 'waits', '-inf', now)
local waits = redis.call('ZRANGE', at .. 'waits', 0, 999, 'WITHSCORES')
for i = 1, #waits, 2 do
  answer[#answer + 1] = waits[i]
  answer[#answer + 1] = whole(waits[i + 1] - now)
end
return answer
