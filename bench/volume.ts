/**
 * What capture moves, counted and not timed: the bytes that each design takes off the device and puts into the messages
 * between the threads, beside the other payload of the same steps, and the size of the rows in an answer. Engine,
 * threads and messages are the real ones, on the TypeScript kernels: the counts are the same on every machine.
 *
 *     nobody    a step of 64 requests that decode, none of which opted in
 *     one       the same step, one request opted in
 *     prompt    one request that opted in, its prompt of 2,708 tokens and one output token, from start to end
 *
 * What a message has for rows is its length less its length under `off`, which schedules the same steps.
 */

import { designs } from '../src/capture/designs.ts';
import { toArray } from '../src/capture/routed-rows.ts';
import { RowJoiner } from '../src/capture/row-joiner.ts';
import { rowShape } from '../src/capture/row-shape.ts';
import type { DesignName, EngineConfig } from '../src/contract/config.ts';
import type { EngineRequest } from '../src/contract/request.ts';
import type { RoutedRows } from '../src/contract/routed-rows.ts';
import { engineConfig } from '../src/host/engine-options.ts';
import { DesignSession } from '../src/host/design-session.ts';
import { LiveEngine } from '../src/host/live-engine.ts';
import { modelPreset } from '../src/kernels/model/model-presets.ts';
import { rowMembers, type RowFormat } from '../src/rows/row-formats.ts';
import { random } from '../src/workload/random.ts';
import { text } from '../src/workload/tokens.ts';

const model = modelPreset('gpt-oss-120b');
const NUM_DECODES = 64;
/** A whole block: the first measured step begins a block for each request, as the first of every 16 does. */
const DECODE_PROMPT = 16;
/** Decode steps of which a case is the mean: as many as a block has tokens. */
const NUM_STEPS = 16;
const LONG_PROMPT = 2708;

const ENGINE: EngineConfig = engineConfig({
  blockSize: 16,
  maxNumSeqs: NUM_DECODES,
  maxNumBatchedTokens: LONG_PROMPT,
  maxModelLen: 4096,
  asyncScheduling: false,
});

/** Bytes of some steps. */
type Volume = Readonly<{ rowsOffDevice: number; restOffDevice: number; messages: number }>;
type Case = 'nobody' | 'one' | 'prompt';
type Measured = Readonly<Record<Case, Volume>> & Readonly<{ rows: RoutedRows | null }>;

function request(
  number: number,
  length: number,
  sampled: Readonly<{ maxTokens: number; optsIn: boolean }>,
): EngineRequest {
  return {
    requestId: `r${number}`,
    promptTokenIds: text(length, { id: number, random: random(0, `volume/${number}`), vocabSize: model.vocabSize }),
    sampling: {
      maxTokens: sampled.maxTokens,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: sampled.optsIn,
      routedExpertsPromptStart: 0,
    },
    priority: 0,
    arrivalTime: number,
    cacheSalt: null,
  };
}

function volumeOf(engine: LiveEngine): Volume {
  const { deviceToHost, captureDeviceToHost, acrossThreads } = engine.transferCounts();
  return {
    rowsOffDevice: captureDeviceToHost,
    restOffDevice: deviceToHost - captureDeviceToHost,
    messages: acrossThreads,
  };
}

/** `(to − from) / count`. */
function meanOf(from: Volume, to: Volume, count: number): Volume {
  return {
    rowsOffDevice: (to.rowsOffDevice - from.rowsOffDevice) / count,
    restOffDevice: (to.restOffDevice - from.restOffDevice) / count,
    messages: (to.messages - from.messages) / count,
  };
}

/** The mean of `NUM_STEPS` steps in which all requests decode; none of them ends. */
async function decodeSteps(session: DesignSession, numOptedIn: number): Promise<Volume> {
  const { promise, resolve, reject } = Promise.withResolvers<Volume>();
  let numSteps = 0;
  let before: Volume | null = null;
  const engine = new LiveEngine(session, {
    onOutput: () => {},
    onStep: ({ numRequests, numTokens }) => {
      if (numRequests !== NUM_DECODES) return reject(new Error(`a step of ${numRequests} requests`));
      // The first step computes the prompts.
      if (numTokens !== NUM_DECODES) before = volumeOf(engine);
      else if (before !== null && ++numSteps === NUM_STEPS) resolve(meanOf(before, volumeOf(engine), NUM_STEPS));
    },
    onDeath: reject,
  });
  for (let i = 0; i < NUM_DECODES; i++) {
    engine.add(request(i, DECODE_PROMPT, { maxTokens: 2 * NUM_STEPS, optsIn: i < numOptedIn }));
  }
  try {
    return await promise;
  } finally {
    await engine.stop();
  }
}

/** One opted-in request by itself, from start to end. */
async function longPrompt(session: DesignSession): Promise<Readonly<{ volume: Volume; rows: RoutedRows | null }>> {
  const joiner = new RowJoiner();
  const engine = new LiveEngine(session, {
    onOutput: ({ routedExperts }) => {
      if (routedExperts !== null) joiner.add(routedExperts);
    },
  });
  const before = volumeOf(engine);
  engine.add(request(NUM_DECODES, LONG_PROMPT, { maxTokens: 1, optsIn: true }));
  engine.drain();
  await engine.ended();
  return { volume: meanOf(before, volumeOf(engine), 1), rows: joiner.rows };
}

async function measure(design: DesignName): Promise<Measured> {
  const session = await DesignSession.start(design, {
    model,
    engine: ENGINE,
    device: 'cpu',
    adapter: null,
    numRanks: 1,
    queueDepth: 1,
    ballastMs: 0,
    fault: null,
  });
  try {
    const nobody = await decodeSteps(session, 0);
    const one = await decodeSteps(session, 1);
    const { volume: prompt, rows } = await longPrompt(session);
    return { nobody, one, prompt, rows };
  } finally {
    await session.close();
  }
}

const count = (bytes: number): string => Math.round(bytes).toLocaleString('en-US');

/** The rows of the prompt in an answer, by form. */
function printAnswers(rows: RoutedRows): void {
  const { bytesPerRow, entriesPerRow } = rowShape(model);
  const numBytes = rows.count * bytesPerRow;
  const base64 = (format: RowFormat): number => {
    const members = new Map(rowMembers(format, rows, model.numExperts));
    const parts = members.get(format === 'sglang' ? 'meta_info' : 'routed_experts')!;
    return [...parts].reduce((length, part) => length + part.length, 0);
  };
  const flat = Array.from(toArray(rows, 0));
  const nested = Array.from({ length: rows.count }, (_row, row) =>
    Array.from({ length: model.numLayers }, (_layer, layer) => {
      const at = row * entriesPerRow + layer * model.topK;
      return flat.slice(at, at + model.topK);
    }),
  );
  const forms: readonly (readonly [string, number])[] = [
    ['the bytes themselves', numBytes],
    ['npy: base64 of a .npy file', base64('npy')],
    ['sglang: base64 of int32', base64('sglang')],
    ['nested lists in JSON', JSON.stringify(nested).length],
  ];
  console.log(`\nthe ${count(rows.count)} rows of the prompt in an answer`);
  console.table(
    forms.map(([form, bytes]) => ({ form, bytes: count(bytes), 'of the bytes': (bytes / numBytes).toFixed(2) })),
  );
}

/** Prints a table for each case, a line for each design. */
export async function run(): Promise<void> {
  const measured = new Map<DesignName, Measured>();
  for (const { name } of Object.values(designs)) measured.set(name, await measure(name));
  const off = measured.get('off')!;
  const { bytesPerRow } = rowShape(model);
  const { bytesPerRow: wideBytesPerRow } = rowShape(model, 'int32');
  console.log(`a row of ${model.name}: ${bytesPerRow} bytes, ${wideBytesPerRow} at int32; all figures are bytes`);
  const titles: Readonly<Record<Case, string>> = {
    nobody: `a step of ${NUM_DECODES} decodes, nobody opted in`,
    one: `a step of ${NUM_DECODES} decodes, one opted in`,
    prompt: `a prompt of ${count(LONG_PROMPT)} tokens, opted in, from start to end`,
  };
  for (const [name, title] of Object.entries(titles) as [Case, string][]) {
    console.log(`\n${title}`);
    console.table(
      [...measured].map(([design, cases]) => {
        const { rowsOffDevice, restOffDevice, messages } = cases[name];
        return {
          design,
          'off the device for rows': count(rowsOffDevice),
          'sampled tokens': count(restOffDevice),
          'messages for rows': count(messages - off[name].messages),
          'other messages': count(off[name].messages),
        };
      }),
    );
  }
  printAnswers(measured.get('deltas')!.rows!);
}
