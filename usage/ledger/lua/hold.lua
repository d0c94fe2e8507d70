-- The most that a call can cost, on every budget or on none; what was held for it before is given back. ARGV[3]: the call;
-- ARGV[4]: when it came in, unix microseconds; ARGV[5]: "1" to hold whatever was spent, even while the part is closed (the
-- process had it before this epoch); then for each claim account, when it may be forgotten (unix seconds), limit ("":
-- whatever was spent), "1" if in tokens, "1" if all calls of its window are counted here, amount.
-- Gives {closed}, {spent, index, 1 if only because of what is held}, {base, index, from, ...}: the books have to be read
-- up to `from` before these can be judged, or {ok, index, from, ...}: the accounts that began in the midst of a window.
local anyhow = ARGV[5] == '1'
if not is_open and not anyhow then return {'closed'} end
local call = read_call(ARGV[3]) or {p = {}, c = {}}
local before = #call.c
if anyhow and before > 0 then return {'ok'} end
give_back(call)
local answer = hold(ARGV[3], call, ARGV[4], 6, anyhow)
if answer[1] ~= 'ok' and before > 0 then forget_claims(ARGV[3], call) end
return answer
