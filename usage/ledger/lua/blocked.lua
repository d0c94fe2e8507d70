-- A policy has blocked a call. ARGV[3]: its key; after how many in ten minutes it has to wait; how long, microseconds.
-- Gives {ok, 1 if it has to wait now}.
if not is_open then return {'closed'} end
local blocks = at .. 'b:' .. ARGV[3]
redis.call('ZADD', blocks, now, whole(now) .. ARGV[2] .. redis.call('ZCARD', blocks))
redis.call('ZREMRANGEBYSCORE', blocks, '-inf', now - 10 * MINUTE)
redis.call('EXPIRE', blocks, 600)
if redis.call('ZCARD', blocks) < tonumber(ARGV[4]) then return {'ok', 0} end
redis.call('DEL', blocks)
redis.call('ZADD', at .. 'waits', now + ARGV[5], ARGV[3])
redis.call('EXPIRE', at .. 'waits', 86400)
return {'ok', 1}
