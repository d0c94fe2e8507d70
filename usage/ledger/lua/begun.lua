-- Since when accounts are counted. ARGV[3]: account; and so on. Gives {closed}, or {ok, its from ("": there is no such
-- account), ...}.
if not is_open then return {'closed'} end
local answer = {'ok'}
for i = 3, #ARGV do answer[#answer + 1] = redis.call('HGET', at .. 'a:' .. ARGV[i], 'from') or '' end
return answer
