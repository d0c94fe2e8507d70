-- Who keeps this part of the ledger, and since when. A part that is not there, or that another run of the server has
-- left, may have lost what it knew: it is closed for a moment, so that every process can say what it has under way,
-- and then begins anew. KEYS[1] the part's epoch; ARGV: run id, microseconds to stay closed.
-- Gives {state, epoch, microseconds until it may be opened}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local value = redis.call('GET', KEYS[1])
if value then
  local state, gen, ready, run = string.match(value, '^(%a+):(%d+):(%d+):(.*)$')
  if run == ARGV[1] then
    if state == 'closed' and now >= tonumber(ready) then
      value = string.gsub(value, '^closed', 'open')
      redis.call('SET', KEYS[1], value)
      state = 'open'
    end
    return {state, string.gsub(value, '^closed', 'open'), math.max(tonumber(ready) - now, 0)}
  end
end
local ready = now + ARGV[2]
local rest = string.format(':%.0f:%.0f:', now, ready) .. ARGV[1]
redis.call('SET', KEYS[1], 'closed' .. rest)
return {'closed', 'open' .. rest, tonumber(ARGV[2])}
