-- The most that a call can cost, on every budget or on none. ARGV[3]: the call; ARGV[4]: when it came in, unix
-- microseconds; ARGV[5]: "1" to hold whatever was spent, even while the part is closed (the process had it before this
-- epoch); then for each claim account, when it may be forgotten (unix seconds), limit ("": whatever was spent), amount,
-- "1" if in tokens, "1" if all calls of its window are counted here.
-- Gives {closed}, {spent, index, 1 if only because of what is held}, {base, index, from, ...}: the books have to be read
-- up to `from` before these can be judged, or {ok, index, from, ...}: the accounts that began in the midst of a window.
local anyhow = ARGV[5] == '1'
if not is_open and not anyhow then return {'closed'} end
local call = read_call(ARGV[3]) or {p = {}, c = {}}
if anyhow and #call.c > 0 then return {'ok'} end
local YOUNG = 900000000
local claims, missing, young = {}, {}, {}
for i = 6, #ARGV, 6 do
  local index = (i - 6) / 6 + 1
  local claim = {account = at .. 'a:' .. ARGV[i], limit = tonumber(ARGV[i + 2]), amount = ARGV[i + 3], tokens = ARGV[i + 4]}
  local known = redis.call('HMGET', claim.account, 'from', 'read', 'own', 'held', 'early', 'early_at', 'base')
  local from, read = tonumber(known[1]), tonumber(known[2])
  if not from then
    -- Else only from when every process has heard of the budget.
    from = ARGV[i + 5] == '1' and 0 or now + 1500000
    read = 0
    redis.call('HSET', claim.account, 'from', whole(from), 'read', 0, 'own', 0, 'held', 0, 'early', 0, 'early_at', 0,
      'base', 0)
    redis.call('EXPIREAT', claim.account, ARGV[i + 1])
    known = {false, false, 0, 0, 0, 0, 0}
  end
  if from > 0 and read == 0 then
    missing[#missing + 1] = index
    missing[#missing + 1] = whole(from)
  elseif from > 0 and now < from + YOUNG then
    young[#young + 1] = index
    young[#young + 1] = whole(from)
  end
  claim.early = tonumber(ARGV[4]) < from
  claim.spent = known[7] + known[3] + known[5]
  claim.held = tonumber(known[4])
  claims[#claims + 1] = claim
end
if not anyhow then
  if #missing > 0 then return {'base', unpack(missing)} end
  for index, claim in ipairs(claims) do
    if claim.limit and claim.spent + claim.held + claim.amount > claim.limit then
      return {'spent', index, claim.spent + claim.amount <= claim.limit and 1 or 0}
    end
  end
end
for _, claim in ipairs(claims) do
  redis.call('HINCRBY', claim.account, 'held', claim.amount)
  call.c[#call.c + 1] = {claim.account, claim.amount, claim.tokens, claim.early and 1 or 0}
end
write_call(ARGV[3], call)
return {'ok', unpack(young)}
