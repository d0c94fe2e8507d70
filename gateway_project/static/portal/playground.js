// Talks to a model through /v1/chat/completions, like any client. The key is lent for a quarter of an hour, and lives in
// this script's memory only.

const form = document.querySelector("[data-playground]");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const part = (name) => form.querySelector(`[data-${name}]`);
const { team, model, system, message, temperature, max_tokens: maxTokens } = form.elements;
const [transcript, empty, problem, status, send, stop] =
  ["transcript", "empty", "problem", "status", "send", "stop"].map(part);
let said = []; // the conversation, as the API wants it
let lent = { team: "", key: "", until: 0, live: null };
let underWay = null; // AbortController of the call

// --- what may be chosen ---
function offer() {
  let first = null;
  for (const option of model.options) {
    const offered = option.dataset.teams.split(" ").includes(team.value);
    option.hidden = option.disabled = !offered;
    if (offered) first ??= option;
  }
  if (model.selectedOptions[0]?.disabled && first) model.value = first.value;
}
// A model that was asked for by the address, in a team that allows it.
const wanted = model.selectedOptions[0];
if (wanted && !wanted.dataset.teams.split(" ").includes(team.value)) team.value = wanted.dataset.teams.split(" ")[0];
team.addEventListener("change", offer);
offer();

// --- the key ---
let asking = null; // for a key: one question at a time

function key({ fresh = false } = {}) {
  if (!fresh && lent.team === team.value && Date.now() < lent.until) return lent.live.then(() => lent.key);
  asking ??= borrow().finally(() => { asking = null; });
  return asking.then((secret) => (lent.team === team.value ? secret : key())); // another team may have been chosen since
}

async function borrow() {
  const body = new URLSearchParams({ team: team.value, csrfmiddlewaretoken: form.elements.csrfmiddlewaretoken.value });
  const answer = await fetch(form.dataset.playground, { method: "POST", body });
  if (answer.redirected) throw new Error("Reload this page: you have to sign in again, or to agree to the terms first.");
  const given = await answer.json().catch(() => ({ error: "The page is out of date. Reload it." }));
  if (!answer.ok) throw new Error(given.error ?? "No key could be had for this team.");
  // Asked for again a minute before it ends.
  const until = Date.now() + (given.expires_in_s - 60) * 1000;
  lent = { team: body.get("team"), key: given.key, until, live: pause(given.live_in_s * 1000) };
  await lent.live;
  return lent.key;
}

// While somebody writes, the key becomes live. What goes wrong with it is said when they send.
message.addEventListener("focus", () => key().catch(() => {}));

async function post(body, signal) {
  const begun = Date.now();
  let secret = await key();
  for (;;) {
    signal.throwIfAborted();
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${secret}` };
    const answer = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
    // Another tab may have been given a key since, and workers may be late to hear of ours.
    if (answer.status !== 401 || Date.now() - begun > 5000) return answer;
    await pause(400);
    if (Date.now() - begun > 2500) secret = await key({ fresh: true });
  }
}

// --- a turn ---
function show(role, text) {
  const turn = document.createElement("li");
  turn.className = `turn turn-${role}`;
  const who = document.createElement("p");
  who.className = "turn-who";
  who.textContent = role === "user" ? "You" : model.value;
  const words = document.createElement("p");
  words.className = "turn-text";
  words.textContent = text;
  turn.append(who, words);
  transcript.append(turn);
  empty.hidden = true;
  return words;
}

function fail(words) {
  problem.textContent = words;
  problem.hidden = false;
}

async function ask() {
  const text = message.value.trim();
  if (!text || underWay || !form.reportValidity()) return;
  problem.hidden = true;
  const before = said;
  said = [...said, { role: "user", content: text }];
  const mine = show("user", text).parentElement;
  message.value = "";
  underWay = new AbortController();
  send.disabled = true;
  stop.hidden = false;
  status.textContent = "Waiting for the answer…";
  const begun = Date.now();
  let words = null;
  let answered = "";
  try {
    const messages = system.value.trim() ? [{ role: "system", content: system.value }, ...said] : said;
    const body = { model: model.value, messages, stream: true, stream_options: { include_usage: true } };
    if (temperature.value) body.temperature = Number(temperature.value);
    if (maxTokens.value) body.max_tokens = Number(maxTokens.value);
    const answer = await post(body, underWay.signal);
    if (!answer.ok) throw new Error(await wordsOf(answer));
    let usage = null;
    for await (const event of events(answer.body)) {
      if (event.error) throw new Error(event.error.message);
      usage = event.usage ?? usage;
      const piece = event.choices?.[0]?.delta?.content;
      if (!piece) continue;
      words ??= show("assistant", "");
      answered += piece;
      words.textContent = answered;
      status.textContent = "Answering…";
    }
    const seconds = ((Date.now() - begun) / 1000).toFixed(1);
    const used = usage ? `, ${usage.prompt_tokens} tokens in and ${usage.completion_tokens} out` : "";
    status.textContent = answered ? `Answered in ${seconds} s${used}.` : `The answer was empty (${seconds} s${used}).`;
  } catch (error) {
    const stopped = error.name === "AbortError";
    status.textContent = stopped ? "Stopped." : "";
    if (!stopped) fail(error.message || "The gateway could not be reached.");
  } finally {
    if (answered) {
      said = [...said, { role: "assistant", content: answered }];
    } else {
      // Nothing came: the message is given back, to be sent again.
      said = before;
      mine.remove();
      empty.hidden = transcript.children.length > 0;
      if (!message.value) message.value = text;
    }
    underWay = null;
    send.disabled = false;
    stop.hidden = true;
    message.focus();
  }
}

function clear() {
  underWay?.abort();
  said = [];
  transcript.replaceChildren();
  problem.hidden = true;
  empty.hidden = false;
  status.textContent = "";
  message.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    ask();
  }
  if (event.key === "Escape") underWay?.abort();
});
stop.addEventListener("click", () => underWay?.abort());
document.querySelector("[data-clear]").addEventListener("click", clear);

async function wordsOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `The gateway answered with status ${answer.status}.`;
  }
}

// The events of a stream, each as JSON; lines may come in any pieces.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith("data:") ? line.slice(5).trim() : "";
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
