-- What the books say of an account: of calls before it began, and by how much later ones were priced otherwise. ARGV[3]:
-- account, that, when they were read, when it began; and so on. Gives {ok}.
if not is_open then return {'closed'} end
for i = 3, #ARGV, 4 do
  local account = at .. 'a:' .. ARGV[i]
  local known = redis.call('HMGET', account, 'from', 'read', 'early_at')
  if known[1] == ARGV[i + 3] and tonumber(ARGV[i + 2]) > tonumber(known[2]) then
    redis.call('HSET', account, 'base', ARGV[i + 1], 'read', ARGV[i + 2])
    if tonumber(known[3]) + 2000000 < tonumber(ARGV[i + 2]) then redis.call('HSET', account, 'early', 0) end
  end
end
return {'ok'}
