// Vercel's `ai`, through each of the providers that speak OpenAI's API.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const served = JSON.parse(process.env.MLXCEL_SERVED);
const connection = { baseURL: served.url, apiKey: served.key };
const openai = createOpenAI(connection);
const compatible = createOpenAICompatible({
  name: "mlxcel",
  includeUsage: true,
  supportsStructuredOutputs: true,
  ...connection,
});
const models = {
  "openai-compatible": compatible(served.model),
  "openai chat": openai.chat(served.model),
  "openai responses": openai.responses(served.model),
};
const schema = z.object({ name: z.string(), age: z.number().int() });

function addTool() {
  const calls = [];
  const add = tool({
    description: "Add two numbers",
    inputSchema: z.object({ a: z.number().int(), b: z.number().int() }),
    execute: ({ a, b }) => {
      calls.push([a, b]);
      return { result: a + b };
    },
  });
  return { calls, tools: { add }, stopWhen: stepCountIs(3) };
}

// `streamText` reports what fails through onError; without one it only prints it.
const onError = ({ error }) => {
  throw error;
};

for (const [name, model] of Object.entries(models)) {
  const settings = { model, temperature: 0, maxRetries: 0 };

  test(`${name}: streams what it answers`, async () => {
    const whole = await generateText({ ...settings, prompt: served.greet });
    assert.ok(whole.text);
    const stream = streamText({ ...settings, prompt: served.greet, onError });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, whole.text);
    assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
    assert.equal(await stream.finishReason, "stop");
  });

  test(`${name}: structured output`, async () => {
    const ask = { ...settings, prompt: served.extract, output: Output.object({ schema }) };
    assert.deepEqual((await generateText(ask)).output, served.extracted);
    const stream = streamText({ ...ask, onError });
    let last;
    for await (const partial of stream.partialOutputStream) last = partial;
    assert.deepEqual(last, served.extracted);
  });

  test(`${name}: strings that zod describes by a format and a pattern`, async () => {
    const schema = z.object({ code: z.string().startsWith("ab").max(6) });
    const ask = { ...settings, prompt: served.greet, output: Output.object({ schema }) };
    assert.match((await generateText(ask)).output.code, /^ab/);
  });

  test(`${name}: runs tools`, async () => {
    const { calls, ...tools } = addTool();
    const whole = await generateText({ ...settings, ...tools, prompt: served.use_tool });
    assert.match(whole.text, /42/);
    const stream = streamText({ ...settings, ...tools, prompt: served.use_tool, onError });
    assert.match(await stream.text, /42/);
    assert.deepEqual(calls, [[17, 25], [17, 25]]);
  });

  test(`${name}: calls a tool that it must call`, async () => {
    const { calls, ...tools } = addTool();
    for (const toolChoice of ["required", { type: "tool", toolName: "add" }]) {
      const once = { ...tools, stopWhen: stepCountIs(1), toolChoice };
      const answer = await generateText({ ...settings, ...once, prompt: served.use_tool });
      assert.equal(answer.finishReason, "tool-calls");
    }
    assert.deepEqual(calls, [[17, 25], [17, 25]]);
  });
}
