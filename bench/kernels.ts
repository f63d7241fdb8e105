/**
 * The engine's kernels but for the routers (routers.ts) at 16, 64, 256 and 2,048 tokens of gpt-oss-120b, by the
 * device's own timestamps where it has them; on a GPU also `attend` over a context of 32,768. Figures of a software
 * adapter say nothing about a GPU. And the oracle, in TypeScript, which verifies a row for every token.
 */

import { Bench } from 'tinybench';
import type { EngineConfig } from '../src/contract/config.ts';
import type { BoundKernel, Device, DeviceBuffer, Kernel } from '../src/contract/device.ts';
import { packWorkgroups } from '../src/kernels/model/kernel-set.ts';
import { kernelShape, packedBytes } from '../src/kernels/model/kernel-shape.ts';
import { modelPreset } from '../src/kernels/model/model-presets.ts';
import { openDevice } from '../src/kernels/device/open-device.ts';
import { Oracle } from '../src/kernels/model/oracle.ts';
import { Router } from '../src/kernels/model/route/route.ts';
import { StepInput, stepInputWords } from '../src/kernels/model/step-input.ts';
import { wgslKernels } from '../src/kernels/model/wgsl-kernels.ts';

const TOKENS = [16, 64, 256, 2048];
const TOKENS_PER_REQUEST = 8;
const CONTEXT = 1024;
const LONG_CONTEXT = 32_768;
const ENGINE: EngineConfig = {
  blockSize: 16,
  // Of a GPU: more keys than its cache holds.
  numBlocks: 300_000,
  maxNumSeqs: 256,
  maxNumBatchedTokens: 2048,
  maxModelLen: LONG_CONTEXT + TOKENS_PER_REQUEST,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: false,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: false,
  watermark: 0,
  numSpeculativeTokens: 0,
};

export async function run(): Promise<void> {
  const device = await openDevice('webgpu', null);
  try {
    console.log(`${device.info.description}, webgpu; a token is a row of 36 × 4 ids; context ${CONTEXT}`);
    const bench = new Bench({ name: 'kernels', time: 0, iterations: 12, warmupTime: 0, warmupIterations: 2 });
    await addTasks(bench, device);
    addOracle(bench);
    await bench.run();
    console.table(
      bench.tasks.map(({ name, result }) => {
        if (!('latency' in result)) return { kernel: name, state: result.state };
        const tokens = Number(/T=(\d+)/.exec(name)?.[1]);
        const us = result.latency.p50 * 1000;
        return {
          kernel: name,
          'µs p50': us.toFixed(1),
          'µs min': (result.latency.min * 1000).toFixed(1),
          'µs/token': (us / tokens).toFixed(3),
        };
      }),
    );
  } finally {
    await device.destroy();
  }
}

function addOracle(bench: Bench): void {
  const model = modelPreset('gpt-oss-120b');
  const sequence = new Oracle(new Router(model));
  const row = new Uint32Array(model.numLayers * model.topK);
  bench.add('oracle T=256', () => {
    for (let token = 0; token < 256; token++) {
      sequence.push(token);
      sequence.row(row);
    }
  });
}

async function addTasks(bench: Bench, device: Device): Promise<void> {
  const model = modelPreset('gpt-oss-120b');
  const { isSoftware } = device.info;
  const shape = kernelShape(model, isSoftware ? { ...ENGINE, numBlocks: 256, maxModelLen: 2048 } : ENGINE);
  const storage = (label: string, words: number): DeviceBuffer => device.createBuffer(label, words * 4, 'storage');
  const stepInput = storage('stepInput', stepInputWords(shape));
  const slotMapping = storage('slotMapping', shape.maxNumBatchedTokens);
  const lastTokens = storage('lastTokens', shape.maxNumSeqs);
  const kvKeys = storage('kvKeys', 2 * shape.numSlots);
  const blockTable = storage('blockTable', shape.maxNumSeqs * shape.maxBlocksPerSeq);
  const hidden = storage('hidden', 4 * shape.maxNumBatchedTokens);
  const routedExperts = storage('routedExperts', shape.maxNumBatchedTokens * shape.numLayers * shape.topK);
  const sampled = storage('sampled', 2 * shape.maxNumSeqs);
  const packRows = storage('packRows', 1 + shape.maxNumBatchedTokens);
  const packed = storage('packed', packedBytes(model, shape.maxNumBatchedTokens) / 4);
  device.write(
    hidden,
    0,
    Uint32Array.from({ length: 4 * shape.maxNumBatchedTokens }, (_, i) => Math.imul(i, 0x9e3779b1)),
  );

  const numBlocks = shape.numSlots / shape.blockSize;
  const table = Uint32Array.from(
    { length: shape.maxNumSeqs * shape.maxBlocksPerSeq },
    (_, i) => Math.imul(i, 0x9e3779b1) >>> 0,
  );
  device.write(
    blockTable,
    0,
    table.map((word) => word % numBlocks),
  );

  const input = new StepInput(shape);
  const add = async (
    kernel: Kernel,
    buffers: readonly DeviceBuffer[],
    grid: readonly [number, number],
    T: number,
    context: number = CONTEXT,
  ): Promise<void> => {
    const bound = await device.bind(kernel, buffers);
    const name = context === CONTEXT ? kernel.name : `${kernel.name} context ${context}`;
    bench.add(`${name} T=${T}`, () => measure(device, bound, grid), {
      beforeEach: () => {
        fillStep(input, T, context);
        device.write(stepInput, 0, input.words.subarray(0, input.numWords));
        device.write(
          packRows,
          0,
          Uint32Array.from({ length: T + 1 }, (_, i) => (i === 0 ? T : i - 1)),
        );
      },
    });
  };
  for (const T of TOKENS) {
    fillStep(input, T, CONTEXT);
    const sizes = { numTokens: T, numRequests: input.numRequests, numTableUpdates: 0 };
    const kernels = wgslKernels(model, shape, device.info);
    const { attendWrite, attend, sample, pack } = kernels;
    await add(attendWrite.kernel, [stepInput, slotMapping, lastTokens, kvKeys, blockTable], attendWrite.grid(sizes), T);
    const attendBuffers = [stepInput, kvKeys, blockTable, hidden];
    await add(attend.kernel, attendBuffers, attend.grid(sizes), T);
    if (!isSoftware) await add(attend.kernel, attendBuffers, attend.grid(sizes), T, LONG_CONTEXT);
    await add(sample.kernel, [stepInput, hidden, sampled, lastTokens], sample.grid(sizes), T);
    await add(pack, [routedExperts, packRows, packed], [packWorkgroups(model, T), 1], T);
  }
}

/** `T` tokens of requests that each compute eight behind a context. */
function fillStep(input: StepInput, T: number, context: number): void {
  const numRequests = T / TOKENS_PER_REQUEST;
  input.begin(T, numRequests, 0);
  for (let i = 0; i < numRequests; i++) input.addRequest(i, context, TOKENS_PER_REQUEST, 0, true);
  input.end();
}

async function measure(
  device: Device,
  bound: BoundKernel,
  [x, y]: readonly [number, number],
): Promise<{ overriddenDuration: number }> {
  return { overriddenDuration: (await device.time((commands) => commands.dispatch(bound, x, y))) / 1e6 };
}
