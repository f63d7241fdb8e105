// KV is read and written in turn with the steps of a rank: behind all that were handed in before, ahead of all that are
// handed in later. A block that is read or written out of turn holds the keys of another moment, and a later request
// would attend to them.

import { beforeEach, expect, test } from 'vitest';
import { designByName } from '../../src/capture/designs.ts';
import type { WorkerConfig } from '../../src/contract/config.ts';
import type { DeviceBuffer } from '../../src/contract/device.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';

const BLOCK_SIZE = 4;
const NUM_STEPS = 3;

/**
 * Results stay on it until it is told to let them go, so that a step can be made to wait for a ring slot with the turn
 * in its hands.
 */
class HoldingDevice extends CpuDevice {
  #letGo: () => void = () => {};
  #held: Promise<void> = Promise.resolve();

  hold(): void {
    this.#held = new Promise((resolve) => (this.#letGo = resolve));
  }

  letGo(): void {
    this.#letGo();
  }

  override async read<T>(buffer: DeviceBuffer, byteLength: number, consume: (bytes: Uint8Array) => T): Promise<T> {
    await this.#held;
    return super.read(buffer, byteLength, consume);
  }
}

// As many slots as there are steps but one: the last step waits for a slot while results are held.
const config: WorkerConfig = {
  rank: 0,
  numRanks: 1,
  model: modelPreset('tiny'),
  engine: {
    blockSize: BLOCK_SIZE,
    numBlocks: 9,
    maxNumSeqs: 2,
    maxNumBatchedTokens: BLOCK_SIZE,
    maxModelLen: 16,
    policy: 'fcfs',
    asyncScheduling: true,
    enablePrefixCaching: false,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: false,
    watermark: 0,
    numSpeculativeTokens: 0,
  },
  design: 'off',
  device: 'cpu',
  adapter: null,
  queueDepth: NUM_STEPS - 2,
  ballastMs: 0,
  sharedMemory: null,
  fault: null,
};

/** A prompt in chunks of a block each: step i computes the keys of block i of the request, and nothing else does. */
function plannedSteps(): readonly Readonly<{ step: SchedulerOutput; blockId: number }>[] {
  const engine = new EngineCore(config.engine, null);
  engine.addRequest({
    requestId: 'r',
    promptTokenIds: Uint32Array.from({ length: NUM_STEPS * BLOCK_SIZE }, (_, i) => i + 3),
    sampling: {
      maxTokens: 1,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: false,
      routedExpertsPromptStart: 0,
    },
    priority: 0,
    arrivalTime: 0,
    cacheSalt: null,
  });
  const blockIds: number[] = [];
  const steps = Array.from({ length: NUM_STEPS }, () => {
    const step = engine.beginStep()!;
    blockIds.push(...step.newBlockIds.subarray(0, step.newBlockOffsets[1]));
    return step;
  });
  return steps.map((step, i) => ({ step, blockId: blockIds[i]! }));
}

const foreignKeys = (): Uint32Array<ArrayBuffer> => new Uint32Array(2 * BLOCK_SIZE).fill(0xabcd);
const noKeys = new Uint32Array(2 * BLOCK_SIZE);

let device: HoldingDevice;
let runner: ModelRunner;
/** What step i leaves in its block. */
let computed: readonly Uint32Array[];

async function fresh(): Promise<void> {
  device = new HoldingDevice();
  const resources = {
    sharedRows: (): never => {
      throw new Error('not for this design');
    },
  };
  runner = await ModelRunner.create(device, config, wgslKernels, designByName('off'), resources);
}

beforeEach(async () => {
  await fresh();
  const steps = plannedSteps();
  await Promise.all(steps.map(({ step }) => runner.execute(step)));
  computed = await Promise.all(steps.map(({ blockId }) => runner.readKv(Uint32Array.of(blockId))));
  for (const keys of computed) expect(keys).not.toEqual(noKeys);
  await fresh();
});

const steps = plannedSteps();
const first = steps[0]!;
const last = steps.at(-1)!;

test('KV is read behind the steps before it, although one of them still waits for a slot', async () => {
  device.hold();
  const ran = steps.map(({ step }) => runner.execute(step));
  const read = runner.readKv(Uint32Array.of(last.blockId));
  await Promise.resolve();
  device.letGo();
  expect(await read).toEqual(computed.at(-1));
  await Promise.all(ran);
});

test('KV is written behind the steps before it, although one of them still waits for a slot', async () => {
  device.hold();
  const ran = steps.map(({ step }) => runner.execute(step));
  const written = runner.writeKv(Uint32Array.of(last.blockId), foreignKeys());
  await Promise.resolve();
  device.letGo();
  await Promise.all([...ran, written]);
  expect(await runner.readKv(Uint32Array.of(last.blockId))).toEqual(foreignKeys());
});

test('KV is read ahead of the steps behind it', async () => {
  const read = runner.readKv(Uint32Array.of(first.blockId));
  const ran = runner.execute(first.step);
  expect(await read).toEqual(noKeys);
  await ran;
  expect(await runner.readKv(Uint32Array.of(first.blockId))).toEqual(computed[0]);
});

test('KV is written ahead of the steps behind it', async () => {
  const written = runner.writeKv(Uint32Array.of(first.blockId), foreignKeys());
  const ran = runner.execute(first.step);
  await Promise.all([written, ran]);
  expect(await runner.readKv(Uint32Array.of(first.blockId))).toEqual(computed[0]);
});
