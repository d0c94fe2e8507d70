-- Rates and parallel calls: all of them, or nothing; and when nothing refuses, what the call can cost at most is held
-- with it. ARGV[3]: the call; ARGV[4]: its key; ARGV[5]: when it came in, unix microseconds; ARGV[6]: about how many
-- tokens it takes; ARGV[7]: how many gates; for each kind (r, t, p or f), bucket, limit (an f stands before the r of a
-- team's bucket, whose keys get fair shares); then claims as hold.lua has them.
-- Gives {closed}, or {refused gate (0: none), microseconds to wait, for each gate the end of its bucket from now, then
-- what hold.lua gives, if there are claims}. Without {ok} there, nothing is held and the call is admitted all the same.
if not is_open then return {'closed'} end
local last = 7 + 3 * ARGV[7]
local gates = {}
local refused, longest = 0, 0
local levels = {}
for i = 8, last, 3 do
  local gate = {kind = ARGV[i], bucket = at .. ARGV[i + 1], limit = tonumber(ARGV[i + 2])}
  gate.amount = gate.kind == 't' and math.min(tonumber(ARGV[6]), gate.limit) or 1
  local index = #gates + 1
  gates[index] = gate
  local wait = nil
  if gate.kind == 'p' then
    local parallel = 0
    for _, count in ipairs(redis.call('HVALS', gate.bucket)) do parallel = parallel + count end
    if parallel >= gate.limit then wait = 0 end
    levels[index] = 0
  elseif gate.kind == 'f' then
    local seen = gate.bucket .. ':seen'
    redis.call('ZADD', seen, now, ARGV[4])
    redis.call('ZREMRANGEBYSCORE', seen, '-inf', now - MINUTE)
    redis.call('PEXPIRE', seen, 120000)
    gate.keys = redis.call('ZCARD', seen)
    gate.share = gate.bucket .. ':' .. ARGV[4]
    local level = math.max((tonumber(redis.call('GET', gate.bucket .. '/r')) or now) - now, 0)
    local own = math.max(tonumber(redis.call('GET', gate.share)) or now, now) + gate.keys * MINUTE / gate.limit
    gate.tat = own
    if gate.keys > 1 and level >= MINUTE / 2 and own - now > MINUTE then wait = own - now - MINUTE end
    levels[index] = 0
  elseif gate.limit == 0 then
    wait = MINUTE
    levels[index] = 0
  else
    local before = math.max(tonumber(redis.call('GET', gate.bucket)) or now, now)
    gate.tat = before + gate.amount * MINUTE / gate.limit
    if gate.tat - now > MINUTE then
      wait = gate.tat - now - MINUTE
      levels[index] = before - now
    else
      levels[index] = gate.tat - now
    end
  end
  if wait and (refused == 0 or wait > longest) then
    refused, longest = index, wait
  end
end
local answer = {refused, whole(math.ceil(longest))}
for index, level in ipairs(levels) do answer[index + 2] = whole(level) end
if refused > 0 then return answer end
local parallel = {}
for _, gate in ipairs(gates) do
  if gate.kind == 'p' then
    redis.call('HINCRBY', gate.bucket, ARGV[2], 1)
    redis.call('EXPIRE', gate.bucket, 86400)
    parallel[#parallel + 1] = gate.bucket
  elseif gate.kind == 'f' then
    redis.call('SET', gate.share, whole(gate.tat), 'PX', 300000)
  elseif gate.limit > 0 then
    redis.call('SET', gate.bucket, whole(gate.tat), 'PX', 300000)
  end
end
local call = read_call(ARGV[3]) or {c = {}}
call.p = parallel
local held = last < #ARGV and hold(ARGV[3], call, ARGV[5], last + 1, false) or {}
for _, value in ipairs(held) do answer[#answer + 1] = value end
if held[1] ~= 'ok' and #parallel > 0 then
  write_call(ARGV[3], call)
end
return answer
