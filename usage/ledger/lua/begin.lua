-- What every script begins with. KEYS[1]: the epoch of a part of the ledger, gh:{part}:epoch; ARGV[1]: the epoch that
-- the process knows; ARGV[2]: its id. All names of the epoch have the part as their hash tag, so a script stays within
-- one slot of a cluster.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local is_open = redis.call('GET', KEYS[1]) == ARGV[1]
local at = string.sub(KEYS[1], 1, -6) .. string.match(ARGV[1], '^%a+:(%d+)') .. ':'
local process = at .. 'p:' .. ARGV[2]
local MINUTE = 60000000
local function whole(number) return string.format('%.0f', number) end

-- What a call has: kept by process, so that what a dead one had is found. Parallel buckets and claims.
local function read_call(id)
  local packed = redis.call('HGET', process, id)
  return packed and cjson.decode(packed) or nil
end
local function write_call(id, call)
  redis.call('HSET', process, id, cjson.encode(call))
end
