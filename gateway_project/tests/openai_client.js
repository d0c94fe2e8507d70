// Runs the `openai` npm package on behalf of test_openai_node.py. One JSON line in is one thing to do:
//   {"act": "call", "resource": "chat.completions.create", "arguments": [...], "client": {...}}
// and one JSON line out is what came of it: {"value": ...} or {"error": {...}}.
"use strict";

const readline = require("node:readline");
const OpenAI = require("openai");

const acts = {
  // The answer, whole.
  async call(client, { resource, arguments: given }) {
    const answer = await method(client, resource)(...given);
    return { ...plain(answer), request_id: answer._request_id };
  },

  // The answer with the status and headers it came with.
  async raw(client, { resource, arguments: given }) {
    const { data, response } = await method(client, resource)(...given).withResponse();
    return { data: plain(data), status: response.status, headers: Object.fromEntries(response.headers) };
  },

  // Every item of a list of pages.
  async list(client, { resource }) {
    const items = [];
    for await (const item of method(client, resource)()) items.push(item);
    return items;
  },

  // The chunks of a stream; with `leave`, only so many, and then the client leaves.
  async stream(client, { resource, arguments: given, leave }) {
    const chunks = [];
    try {
      for await (const chunk of await method(client, resource)(...given)) {
        chunks.push(chunk);
        if (chunks.length === leave) break;
      }
    } catch (error) {
      return { chunks, error: told(error) };
    }
    return { chunks };
  },

  // What the package's own helper puts together from a stream, and the pieces it reported.
  async gather(client, { resource, arguments: given }) {
    const runner = method(client, resource)(...given);
    const pieces = [];
    runner.on("content", (piece) => pieces.push(piece));
    return { completion: plain(await runner.finalChatCompletion()), pieces };
  },

  // The package calls the tool by itself, as often as it is asked to, and sends back what it gave.
  async runTools(client, { arguments: [body] }) {
    const seen = [];
    const tools = body.tools.map((tool) => ({
      ...tool,
      function: {
        ...tool.function,
        parse: JSON.parse,
        function: (parsed) => {
          seen.push(parsed);
          return "sunny";
        },
      },
    }));
    const content = await client.chat.completions.runTools({ ...body, tools }).finalContent();
    return { seen, content };
  },

  // Aborted from outside, after `after_ms`.
  async abort(client, { resource, arguments: [body], after_ms: afterMs }) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), afterMs);
    return plain(await method(client, resource)(body, { signal: controller.signal }));
  },
};

function method(client, path) {
  const names = path.split(".");
  const last = names.pop();
  const owner = names.reduce((object, name) => object[name], client);
  return owner[last].bind(owner);
}

function plain(value) {
  return JSON.parse(JSON.stringify(value));
}

function told(error) {
  const { status, code, type, param, requestID, message } = error;
  const headers = error.headers ? Object.fromEntries(error.headers) : {};
  return { class: error.constructor.name, status, code, type, param, request_id: requestID, message, headers };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const wish = JSON.parse(line);
    let outcome;
    try {
      const client = new OpenAI({ maxRetries: 0, ...wish.client });
      outcome = { value: await acts[wish.act](client, wish) };
    } catch (error) {
      if (!(error instanceof OpenAI.OpenAIError)) throw error;
      outcome = { error: told(error) };
    }
    process.stdout.write(`${JSON.stringify(outcome)}\n`);
  }
}

main();
