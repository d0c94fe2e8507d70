-- What a call holds on budgets is given back, because another part has refused it. ARGV[3]: the call. Gives {ok}.
if not is_open then return {'closed'} end
local call = read_call(ARGV[3])
if call then
  for _, claim in ipairs(call.c) do redis.call('HINCRBY', claim[1], 'held', '-' .. claim[2]) end
  if #call.p > 0 then
    write_call(ARGV[3], {p = call.p, c = {}})
  else
    redis.call('HDEL', process, ARGV[3])
  end
end
return {'ok'}
