-- What a call holds on budgets is given back, because another part has refused it. ARGV[3]: the call. Gives {ok}.
if not is_open then return {'closed'} end
local call = read_call(ARGV[3])
if call then
  give_back(call)
  forget_claims(ARGV[3], call)
end
return {'ok'}
