-- What a process has left that died. ARGV[2]: it. Gives {ok, call, what it holds of money, of tokens, ...}, of at most
-- 500 calls; when nothing is left it is forgotten.
if not is_open then return {'closed'} end
local left = redis.call('HGETALL', process)
if #left == 0 then
  redis.call('ZREM', at .. 'leases', ARGV[2])
  return {'ok'}
end
local answer = {'ok'}
for i = 1, math.min(#left, 1000), 2 do
  local money, tokens = '0', '0'
  for _, claim in ipairs(cjson.decode(left[i + 1]).c) do
    if claim[3] == '1' then tokens = claim[2] else money = claim[2] end
  end
  answer[#answer + 1] = left[i]
  answer[#answer + 1] = money
  answer[#answer + 1] = tokens
end
return answer
