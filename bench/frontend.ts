/**
 * What vLLM's frontend costs the engine's thread: 64 requests in flight, each with a token and its row in every step,
 * from the engine's output to ZeroMQ. `calls` is the time inside the session and its sockets; `thread` is the processor
 * time of the whole thread, less that of the same steps without a frontend. At most 50 µs a request and step.
 */

import { once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { encode } from '@msgpack/msgpack';
import { Push } from 'zeromq';
import { EngineCore, type EngineStats } from '../src/engine/engine-core.ts';
import { engineConfig } from '../src/host/engine-options.ts';
import { modelPreset } from '../src/kernels/model/model-presets.ts';
import { rowShape, viewRows } from '../src/capture/row-shape.ts';
import { routedRows } from '../src/capture/routed-rows.ts';
import { FrontendSession } from '../src/serve/vllm-frontend/frontend-session.ts';
import { madeUpLogprobs } from '../src/serve/vllm-frontend/made-up-logprobs.ts';
import { SendQueue } from '../src/serve/vllm-frontend/send-queue.ts';

const NUM_REQUESTS = 64;
const NUM_STEPS = 1500;
const NUM_WARM_UP_STEPS = 300;
const PROMPT_TOKENS = 1000;
const MODELS = ['gpt-oss-120b', 'deepseek-v3', 'kimi-k3'];

type Cost = Readonly<{ callsUs: number; threadUs: number; addUs: number }>;

export async function run(): Promise<void> {
  const table: Record<string, string>[] = [];
  for (const model of MODELS) {
    const { bytesPerRow } = rowShape(modelPreset(model));
    const costs: Cost[] = [];
    for (let i = 0; i < 5; i++) costs.push(await measure(model));
    table.push({
      model,
      'bytes of a row': String(bytesPerRow),
      'calls, µs a request and step': spread(costs.map(({ callsUs }) => callsUs)),
      'thread, µs a request and step': spread(costs.map(({ threadUs }) => threadUs)),
      [`a request of ${PROMPT_TOKENS} tokens read, µs`]: spread(costs.map(({ addUs }) => addUs)),
    });
  }
  console.log(`${NUM_REQUESTS} requests, ${NUM_STEPS} steps; median (lowest to highest) of 5 runs`);
  console.table(table);
}

async function measure(name: string): Promise<Cost> {
  const sink = new Worker(new URL('./frontend-sink.worker.ts', import.meta.url));
  const [address] = (await once(sink, 'message')) as [string];
  const socket = new Push({ sendHighWaterMark: 0, linger: 0 });
  socket.connect(address);
  const queue = new SendQueue(socket);
  const model = modelPreset(name);
  const shape = rowShape(model);
  const stats: EngineStats = new EngineCore(engineConfig({ asyncScheduling: false }), null).stats();
  const session = new FrontendSession(
    {
      engineIndex: 0,
      numExperts: model.numExperts,
      numWorkers: 1,
      blockSize: 16,
      weightVersion: 'default',
      logprobs: () => madeUpLogprobs(97, 0),
      withLayers: (rows) => rows,
      rules: {
        vocabSize: model.vocabSize,
        maxModelLen: 4096,
        numClients: 1,
        rowsFor: 'all',
        transfer: null,
        maxMessageBytes: 2 ** 26,
      },
    },
    {
      engine: {
        add: () => {},
        abort: () => {},
        pause: () => {},
        resume: () => {},
        resetPrefixCache: () => true,
        stats: () => stats,
      },
      send: (_, frames) => queue.push(frames),
      tellCoordinator: null,
      warn: (text) => console.error(text),
    },
  );
  const ids = Array.from({ length: NUM_REQUESTS }, (_, i) => `cmpl-0123456789abcdef0123456789abcde${i}-abcdefgh`);
  const frames = ids.map((id) => [Uint8Array.of(0), encode(requestArray(id))]);
  const addBegan = performance.now();
  for (const each of frames) session.onMessage(0, each, 0);
  const addUs = ((performance.now() - addBegan) / NUM_REQUESTS) * 1e3;

  /** One step: the outputs that an engine would hand out, with fresh rows, as designs make them. */
  const step = async (position: number, toFrontend: boolean): Promise<number> => {
    const outputs = ids.map((requestId) => ({
      requestId,
      newTokenIds: [position % model.vocabSize],
      finishReason: null,
      stopReason: null,
      prefill: null,
      routedExperts: routedRows(shape, position, position + 1, {
        chunks: [viewRows(shape, new Uint8Array(shape.bytesPerRow), 1)],
      }),
    }));
    const began = performance.now();
    if (toFrontend) {
      session.onStepBegun(1);
      for (const output of outputs) session.onOutput(output, null, 1);
      session.onStepEnded(1);
      session.flush(1);
    }
    const calls = performance.now() - began;
    await nextTurn();
    return calls;
  };
  for (let i = 0; i < NUM_WARM_UP_STEPS; i++) await step(i, true);
  const alone = process.threadCpuUsage();
  for (let i = 0; i < NUM_STEPS; i++) await step(i, false);
  const without = total(process.threadCpuUsage(alone));
  let calls = 0;
  const together = process.threadCpuUsage();
  for (let i = 0; i < NUM_STEPS; i++) calls += await step(i, true);
  await queue.drained();
  const withFrontend = total(process.threadCpuUsage(together));
  socket.close();
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  sink.postMessage('close');
  await once(sink, 'exit');
  const numParts = NUM_REQUESTS * NUM_STEPS;
  return { callsUs: (calls * 1e3) / numParts, threadUs: (withFrontend - without) / numParts, addUs };
}

function requestArray(id: string): unknown[] {
  const items: unknown[] = Array.from({ length: 21 }, () => null);
  items[0] = id;
  items[1] = Array.from({ length: PROMPT_TOKENS }, (_, i) => i);
  items[3] = { stop: [], stop_token_ids: [], bad_words: [], max_tokens: 2048, skip_reading_prefix_cache: false };
  items[5] = 1.5;
  items[11] = items[12] = items[13] = 0;
  items[15] = items[19] = false;
  return items;
}

/** µs. */
function total({ user, system }: NodeJS.CpuUsage): number {
  return user + system;
}

function spread(values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, middle, high] = [sorted[0]!, sorted[Math.floor(sorted.length / 2)]!, sorted.at(-1)!];
  return `${middle.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}
