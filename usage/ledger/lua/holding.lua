-- What admit.lua, hold.lua and release.lua share.
local YOUNG = 900000000

local function give_back(call)
  for _, claim in ipairs(call.c) do redis.call('HINCRBY', claim[1], 'held', '-' .. claim[2]) end
  call.c = {}
end

-- Of a call whose claims were given back.
local function forget_claims(id, call)
  if #call.p > 0 then write_call(id, call) else redis.call('HDEL', process, id) end
end

-- Holds the claims of a call that has none; they begin at ARGV[first]. Gives what hold.lua does.
local function hold(id, call, came, first, anyhow)
  local claims, missing, young = {}, {}, {}
  for i = first, #ARGV, 6 do
    local index = (i - first) / 6 + 1
    local claim =
      {account = at .. 'a:' .. ARGV[i], limit = tonumber(ARGV[i + 2]), tokens = ARGV[i + 3], amount = ARGV[i + 5]}
    local known = redis.call('HMGET', claim.account, 'from', 'read', 'own', 'held', 'early', 'early_at', 'base')
    local from, read = tonumber(known[1]), tonumber(known[2])
    if not from then
      -- Else only from when every process has heard of the budget.
      from = ARGV[i + 4] == '1' and 0 or now + 1500000
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
    claim.early = tonumber(came) < from
    claim.spent = known[7] + known[3] + known[5]
    claim.held = tonumber(known[4])
    claims[#claims + 1] = claim
  end
  if not anyhow then
    if #missing > 0 then return {'base', unpack(missing)} end
    for index, claim in ipairs(claims) do
      -- What costs nothing fits into any budget.
      if claim.limit and claim.amount ~= '0' and claim.spent + claim.held + claim.amount > claim.limit then
        return {'spent', index, claim.spent + claim.amount <= claim.limit and 1 or 0}
      end
    end
  end
  for _, claim in ipairs(claims) do
    redis.call('HINCRBY', claim.account, 'held', claim.amount)
    call.c[#call.c + 1] = {claim.account, claim.amount, claim.tokens, claim.early and 1 or 0}
  end
  write_call(id, call)
  return {'ok', unpack(young)}
end
