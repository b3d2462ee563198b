// OpenAI's SDK for JavaScript: chat completions and responses.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const served = JSON.parse(process.env.MLXCEL_SERVED);
const client = new OpenAI({ baseURL: served.url, apiKey: served.key, maxRetries: 0 });
const asked = (content) => ({
  model: served.model,
  messages: [{ role: "user", content }],
  temperature: 0,
});
const Person = z.object({ name: z.string(), age: z.number().int() });
const parameters = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
  additionalProperties: false,
};

function addTool() {
  const calls = [];
  const definition = {
    name: "add",
    description: "Add two numbers",
    strict: true,
    parameters,
    parse: JSON.parse,
    function: ({ a, b }) => {
      calls.push([a, b]);
      return JSON.stringify({ result: a + b });
    },
  };
  return { calls, tools: [{ type: "function", function: definition }] };
}

test("lists its model", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, [served.model]);
});

test("streams what it answers", async () => {
  const whole = await client.chat.completions.create(asked(served.greet));
  const stream = client.chat.completions.stream({
    ...asked(served.greet),
    stream_options: { include_usage: true },
  });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.ok(text);
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(await stream.finalContent(), text);
  assert.deepEqual((await stream.totalUsage()).completion_tokens, whole.usage.completion_tokens);
});

test("structured output", async () => {
  const ask = { ...asked(served.extract), response_format: zodResponseFormat(Person, "person") };
  const whole = await client.chat.completions.parse(ask);
  assert.deepEqual(whole.choices[0].message.parsed, served.extracted);
  const streamed = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, served.extracted);
});

for (const stream of [false, true]) {
  test(`runs tools, ${stream ? "streamed" : "whole"}`, async () => {
    const { calls, tools } = addTool();
    const runner = client.chat.completions.runTools({ ...asked(served.use_tool), tools, stream });
    assert.match(await runner.finalContent(), /42/);
    assert.deepEqual(calls, [[17, 25]]);
  });
}

test("responses", async () => {
  const ask = { model: served.model, temperature: 0 };
  const whole = await client.responses.create({ ...ask, input: served.greet });
  const stream = client.responses.stream({ ...ask, input: served.greet });
  let text = "";
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  assert.equal((await stream.finalResponse()).output_text, whole.output_text);
  assert.equal(text, whole.output_text);

  const format = zodTextFormat(Person, "person");
  const parsed = await client.responses.parse({ ...ask, input: served.extract, text: { format } });
  assert.deepEqual(parsed.output_parsed, served.extracted);

  const tools = [{ type: "function", name: "add", description: "Add two numbers", strict: true, parameters }];
  const first = await client.responses.create({ ...ask, input: served.use_tool, tools });
  const [call] = first.output;
  assert.equal(call.type, "function_call");
  const { a, b } = JSON.parse(call.arguments);
  const output = JSON.stringify({ result: a + b });
  const second = await client.responses.create({
    ...ask,
    tools,
    previous_response_id: first.id,
    input: [{ type: "function_call_output", call_id: call.call_id, output }],
  });
  assert.match(second.output_text, /42/);
});

test("errors are typed", async () => {
  await assert.rejects(
    client.chat.completions.create({ ...asked(served.greet), temperature: -1 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
  );
  await assert.rejects(client.withOptions({ apiKey: "another" }).models.list(), OpenAI.AuthenticationError);
});
