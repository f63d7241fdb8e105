/**
 * The engine's selection in two kernels (gate, router) and in one (the fused ones), on whatever adapter there is: equal ids on all rows, and
 * the median of paired device times. `npm run bench routers [tokens …]`.
 */

import type { BoundKernel, Device, DeviceBuffer } from '../src/contract/device.ts';
import type { EngineConfig } from '../src/contract/config.ts';
import { fusedPorts, gateGrid, gateKernel, packGate } from '../src/kernels/gate-kernels.ts';
import { kernelShape } from '../src/kernels/kernel-shape.ts';
import { MODEL_NAMES, modelPreset } from '../src/kernels/model-presets.ts';
import { openDevice } from '../src/kernels/open-device.ts';
import { routingFunction } from '../src/kernels/router/routing-function.ts';
import { routerKernel, routerWorkgroups, selectingPorts } from '../src/kernels/router/router-kernels.ts';
import { chooseRouter, portableRouter, subgroupRouter } from '../src/kernels/router/router-variant.ts';
import { StepInput, stepInputWords } from '../src/kernels/step-input.ts';
import { wgslKernels } from '../src/kernels/wgsl-kernels.ts';

const GPU_TOKENS = [16, 64, 256, 2048];
const SOFTWARE_TOKENS = [16, 64];
const CONTEXT = 1024;
const ROUNDS = Number(process.env['ROUNDS'] ?? 15);
/** Device time of one measurement. */
const PASS_US = 3000;

const ENGINE: EngineConfig = {
  blockSize: 16,
  numBlocks: 20_000,
  maxNumSeqs: 256,
  maxNumBatchedTokens: 2048,
  maxModelLen: 2048,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: false,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: false,
  watermark: 0,
  numSpeculativeTokens: 0,
};

type Dispatch = Readonly<{ bound: BoundKernel; grid: readonly [x: number, y: number] }>;

const noReference = (): void => {
  throw new Error('for the bench alone');
};

export async function run(): Promise<void> {
  const device = await openDevice('webgpu', null);
  const numbers = process.argv.filter((argument) => /^\d+$/.test(argument)).map(Number);
  const tokens = numbers.length > 0 ? numbers : device.info.isSoftware ? SOFTWARE_TOKENS : GPU_TOKENS;
  const chunkMegabytes = (process.env['CHUNK_MB'] ?? '64,1024').split(',').map(Number);
  const models = process.env['MODELS']?.split(',') ?? MODEL_NAMES;
  console.log(
    `${device.info.description}, subgroups ${String(device.info.subgroupSizes)}; µs, medians of ${ROUNDS} paired rounds`,
  );
  console.log('step: attend-write, attend, router, sample; ×: ratio to the fused kernel of today (over 1 is slower)');
  try {
    for (const name of models) {
      for (const numTokens of tokens) console.log(await compare(device, name, numTokens, chunkMegabytes));
    }
  } finally {
    await device.destroy();
  }
}

async function compare(
  device: Device,
  name: string,
  numTokens: number,
  chunkMegabytes: readonly number[],
): Promise<string> {
  const model = modelPreset(name);
  const { numLayers, numExperts, topK, routingFunction } = model;
  const shape = kernelShape(model, ENGINE);
  const buffers: DeviceBuffer[] = [];
  const storage = (label: string, words: number | Uint32Array): DeviceBuffer => {
    const buffer = device.createBuffer(label, 4 * (typeof words === 'number' ? words : words.length), 'storage');
    buffers.push(buffer);
    if (typeof words !== 'number') device.write(buffer, 0, words);
    return buffer;
  };
  try {
    const input = new StepInput(shape);
    const perRequest = Math.max(1, numTokens / 256);
    input.begin(numTokens, numTokens / perRequest, 0);
    for (let i = 0; i < numTokens / perRequest; i++) input.addRequest(i, CONTEXT, perRequest, 0, true);
    input.end();
    const stepInput = storage('stepInput', stepInputWords(shape));
    device.write(stepInput, 0, input.words.subarray(0, input.numWords));
    const hidden = storage(
      'hidden',
      Uint32Array.from({ length: 4 * shape.maxNumBatchedTokens }, (_, i) => Math.imul(i ^ (i >>> 7), 0x9e3779b1)),
    );
    const numIds = numTokens * numLayers * topK;
    const kernels = wgslKernels(model, shape, device.info);
    const slotMapping = storage('slots', shape.maxNumBatchedTokens);
    const lastTokens = storage('lastTokens', shape.maxNumSeqs);
    const kvKeys = storage('kvKeys', 2 * shape.numSlots);
    const blockTable = storage(
      'blockTable',
      Uint32Array.from({ length: shape.maxNumSeqs * shape.maxBlocksPerSeq }, (_, i) => (i * 7919) % ENGINE.numBlocks),
    );
    const otherHidden = storage('otherHidden', 4 * shape.maxNumBatchedTokens);
    const sampled = storage('sampled', 4 * shape.maxNumSeqs);
    const before: Dispatch[] = [
      {
        bound: await device.bind(kernels.attendWrite.kernel, [stepInput, slotMapping, lastTokens, kvKeys, blockTable]),
        grid: kernels.attendWrite.grid(input),
      },
      {
        bound: await device.bind(kernels.attend.kernel, [stepInput, kvKeys, blockTable, otherHidden]),
        grid: kernels.attend.grid(input),
      },
    ];
    const after: Dispatch[] = [
      {
        bound: await device.bind(kernels.sample.kernel, [stepInput, hidden, sampled, lastTokens]),
        grid: kernels.sample.grid(input),
      },
    ];

    const candidates: { name: string; ids: DeviceBuffer; dispatches: Dispatch[] }[] = [];
    const oldIds = storage('ids of today', numIds);
    const oldWeights = storage('weights of today', kernels.gateWeights());
    candidates.push({
      name: kernels.route.kernel.name.replace(/^.*-(?=portable|wide|scored|subgroup)/, ''),
      ids: oldIds,
      dispatches: [
        {
          bound: await device.bind(kernels.route.kernel, [stepInput, hidden, oldWeights, oldIds]),
          grid: kernels.route.grid(input),
        },
      ],
    });

    const gateWeights = storage('gate', packGate(model));
    const groups = routingFunction?.groups ?? null;
    const select = routingFunction({ numExperts, topK, scoring: 'identity', groups });
    const selected = new Map<string, number>();
    for (const megabytes of chunkMegabytes) {
      const limit = Math.min(device.info.maxStorageBufferBytes, megabytes * 2 ** 20);
      const chunkTokens = Math.min(numTokens, Math.max(16, Math.floor(limit / (4 * numLayers * numExperts) / 16) * 16));
      if (selected.has(String(chunkTokens))) continue;
      selected.set(String(chunkTokens), megabytes);
      const numChunks = Math.ceil(numTokens / chunkTokens);
      const ids = storage(`ids ${megabytes}`, numIds);
      const choices = storage(`choices ${megabytes}`, chunkTokens * numLayers * numExperts);
      const unused = storage('unused', 4);
      const gate = gateKernel(model, chunkTokens, device.info.isSoftware ? 16 : 128, noReference);
      const variant = chooseRouter(select, device.info, chunkTokens * numLayers);
      const router = routerKernel(select, variant, selectingPorts(select, noReference));
      const dispatches: Dispatch[] = [];
      for (let chunk = 0; chunk < numChunks; chunk++) {
        const own = Math.min(chunkTokens, numTokens - chunk * chunkTokens);
        const params = storage('params', Uint32Array.of(0, chunk * chunkTokens * numLayers));
        dispatches.push({
          bound: await device.bind(gate, [stepInput, hidden, gateWeights, params, choices]),
          grid: gateGrid(model, own),
        });
        dispatches.push({
          bound: await device.bind(router, [params, choices, unused, ids]),
          grid: [routerWorkgroups(variant, own * numLayers), 1],
        });
      }
      candidates.push({ name: `gate+${variant.algorithm} in ${numChunks}`, ids, dispatches });
    }

    const fusedVariant =
      (device.info.isSoftware ? null : subgroupRouter(select, device.info.subgroupSizes, numTokens * numLayers)) ??
      portableRouter(select, device.info.isSoftware);
    const fusedIds = storage('fused ids', numIds);
    candidates.push({
      name: `fused ${fusedVariant.algorithm}`,
      ids: fusedIds,
      dispatches: [
        {
          bound: await device.bind(routerKernel(select, fusedVariant, fusedPorts(model, noReference)), [
            stepInput,
            hidden,
            gateWeights,
            fusedIds,
          ]),
          grid: [routerWorkgroups(fusedVariant, numTokens * numLayers), 1],
        },
      ],
    });

    const expected = await runOnce(device, candidates[0]!, numIds);
    const times = await measure(
      device,
      candidates.flatMap(({ dispatches }) => [dispatches, [...before, ...dispatches, ...after]]),
    );
    const parts: string[] = [];
    for (const [i, candidate] of candidates.entries()) {
      const actual = i === 0 ? expected : await runOnce(device, candidate, numIds);
      const wrong = actual.reduce((n, id, at) => n + Number(id !== expected[at]), 0);
      const [us, stepUs] = [times[2 * i]!, times[2 * i + 1]!];
      const ratios = i === 0 ? '' : ` ×${(us / times[0]!).toFixed(2)}, step ×${(stepUs / times[1]!).toFixed(2)}`;
      const right = wrong === 0 ? '' : `  ${wrong} WRONG IDS`;
      parts.push(`${candidate.name} ${us.toFixed(1)} (step ${stepUs.toFixed(1)})${ratios}${right}`);
    }
    return `${name} T=${numTokens}: ${parts.join('  |  ')}`;
  } finally {
    for (const buffer of buffers) buffer.destroy();
  }
}

async function runOnce(
  device: Device,
  { ids, dispatches }: Readonly<{ ids: DeviceBuffer; dispatches: readonly Dispatch[] }>,
  numIds: number,
): Promise<Uint32Array> {
  const readback = device.createBuffer('readback', 4 * numIds, 'readback');
  device.submit((commands) => {
    for (const { bound, grid } of dispatches) commands.dispatch(bound, ...grid);
    commands.copy(ids, 0, readback, 0, 4 * numIds);
  });
  const words = await device.read(readback, 4 * numIds, (bytes) => new Uint32Array(bytes.slice().buffer));
  readback.destroy();
  return words;
}

/** Median microseconds of each sequence of dispatches; in every round each of them has its turn. */
async function measure(device: Device, sequences: readonly (readonly Dispatch[])[]): Promise<readonly number[]> {
  const time = async (sequence: readonly Dispatch[], repeats: number): Promise<number> => {
    const nanoseconds = await device.time((commands) => {
      for (let i = 0; i < repeats; i++) for (const { bound, grid } of sequence) commands.dispatch(bound, ...grid);
    });
    return nanoseconds / 1000 / repeats;
  };
  const repeats: number[] = [];
  for (const sequence of sequences) {
    await time(sequence, 1);
    repeats.push(Math.max(1, Math.min(60, Math.floor(PASS_US / (await time(sequence, 1))))));
  }
  const times = sequences.map((): number[] => []);
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [i, sequence] of sequences.entries()) {
      const us = await time(sequence, repeats[i]!);
      if (round > 0) times[i]!.push(us);
    }
  }
  return times.map((list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)]!);
}
