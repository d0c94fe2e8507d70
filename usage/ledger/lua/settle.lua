-- What a call has is given back, and what it cost booked: once, because what it has is gone then. ARGV[3]: the call;
-- nano-USD; tokens; then for each bucket of tokens, bucket, limit, and how many more it used than it was charged.
-- Gives {ok}, also when there was nothing to give back.
if not is_open then return {'closed'} end
local call = read_call(ARGV[3])
if call then
  redis.call('HDEL', process, ARGV[3])
  for _, bucket in ipairs(call.p) do
    if redis.call('HINCRBY', bucket, ARGV[2], -1) <= 0 then redis.call('HDEL', bucket, ARGV[2]) end
  end
  for _, claim in ipairs(call.c) do
    local account, amount, tokens, early = claim[1], claim[2], claim[3], claim[4]
    local cost = tokens == '1' and ARGV[5] or ARGV[4]
    redis.call('HINCRBY', account, 'held', '-' .. amount)
    if early == 1 then
      redis.call('HINCRBY', account, 'early', cost)
      redis.call('HSET', account, 'early_at', whole(now))
    else
      redis.call('HINCRBY', account, 'own', cost)
    end
  end
end
for i = 6, #ARGV, 3 do
  local bucket = at .. ARGV[i]
  local tat = math.max(tonumber(redis.call('GET', bucket)) or now, now - MINUTE)
  redis.call('SET', bucket, whole(tat + ARGV[i + 2] * MINUTE / ARGV[i + 1]), 'PX', 300000)
end
return {'ok'}
