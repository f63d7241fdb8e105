/**
 * The engine's ways to route, on whatever adapter there is: a gate and a router kernel, or one kernel. Every way must
 * give the same ids for all rows; times are medians of device times that take turns. Beside them a monolithic router,
 * without `routing_replay_out` and with it: what the ids cost that nobody else reads. `MODELS=a,b` limits the presets:
 * `npm run bench -- routers [tokens …]`.
 */

import type { EngineConfig, ModelConfig } from '../src/contract/config.ts';
import type { Device } from '../src/contract/device.ts';
import { ForwardPass } from '../src/kernels/model/forward-pass.ts';
import { MODEL_NAMES, modelPreset } from '../src/kernels/model/model-presets.ts';
import { openDevice } from '../src/kernels/device/open-device.ts';
import type { KernelSetFactory } from '../src/kernels/model/kernel-set.ts';
import { chooseEngineRouter, engineRouterName } from '../src/kernels/model/route/engine-router.ts';
import { StepInput } from '../src/kernels/model/step-input.ts';
import { wgslKernelsFor, wgslKernelsWith } from '../src/kernels/model/wgsl-kernels.ts';

const GPU_TOKENS = [16, 64, 256, 2048];
const SOFTWARE_TOKENS = [16, 64];
const CONTEXT = 1024;
const ROUNDS = 15;
/** Device time of one measurement. */
const PASS_US = 3000;

function engineConfig(numTokens: number): EngineConfig {
  return {
    blockSize: 16,
    numBlocks: 20_000,
    maxNumSeqs: 256,
    maxNumBatchedTokens: numTokens,
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
}

export async function run(): Promise<void> {
  const device = await openDevice('webgpu', null);
  const given = process.argv.filter((argument) => /^\d+$/.test(argument)).map(Number);
  const tokens = given.length > 0 ? given : device.info.isSoftware ? SOFTWARE_TOKENS : GPU_TOKENS;
  const models = process.env['MODELS']?.split(',') ?? MODEL_NAMES;
  console.log(`${device.info.description}; µs of a whole step (attend, router, sample), median of ${ROUNDS}`);
  try {
    for (const name of models) {
      const model = modelPreset(name);
      for (const numTokens of tokens) {
        console.log(`${name} T=${numTokens}: ${await compare(device, model, numTokens, modularWays(device, model))}`);
        console.log(`${name} T=${numTokens}: ${await compare(device, model, numTokens, MONOLITHIC_WAYS)}`);
      }
    }
  } finally {
    await device.destroy();
  }
}

type Way = Readonly<{ name: string; kernels: KernelSetFactory }>;

/** The chosen way, and the best of the other kind. */
function modularWays(device: Device, model: ModelConfig): readonly Way[] {
  const chosen = chooseEngineRouter(model, device.info);
  const kernels = chosen.isFused ? 'gated' : 'fused';
  return [chosen, chooseEngineRouter(model, device.info, { kind: 'modular', kernels })].map((engineRouter) => ({
    name: engineRouterName(engineRouter),
    kernels: (own, shape, info) => wgslKernelsWith(own, shape, info, engineRouter),
  }));
}

const MONOLITHIC_WAYS: readonly Way[] = [
  { name: 'monolithic', kernels: wgslKernelsFor({ kind: 'monolithic', hasRoutingReplay: false }) },
  { name: 'with routing_replay_out', kernels: wgslKernelsFor({ kind: 'monolithic', hasRoutingReplay: true }) },
];

async function compare(device: Device, model: ModelConfig, numTokens: number, ways: readonly Way[]): Promise<string> {
  const engine = engineConfig(numTokens);
  const passes: { pass: ForwardPass; input: StepInput }[] = [];
  try {
    for (const { kernels } of ways) {
      const pass = await ForwardPass.create(device, { model, engine, ballastMs: 0, kernels });
      const input = randomStep(pass, numTokens);
      pass.upload(input);
      passes.push({ pass, input });
    }
    const answers = await Promise.all(passes.map(({ pass, input }) => idsOf(device, pass, input, model)));
    const wrong = answers.map((ids) => ids.reduce((n, id, at) => n + Number(id !== answers[0]![at]), 0));
    const times = await medians(device, passes);
    const parts = ways.map(({ name }, i) => {
      const ratio = i === 0 ? '' : ` ×${(times[i]! / times[0]!).toFixed(2)}`;
      return `${name} ${times[i]!.toFixed(1)}${ratio}${wrong[i]! > 0 ? ` ${wrong[i]} OTHER IDS` : ''}`;
    });
    return parts.join('  |  ');
  } finally {
    for (const { pass } of passes) pass.destroy();
  }
}

function randomStep(pass: ForwardPass, numTokens: number): StepInput {
  const input = new StepInput(pass.shape);
  const perRequest = Math.max(1, numTokens / 256);
  const numRequests = numTokens / perRequest;
  input.begin(numTokens, numRequests, 0);
  for (let i = 0; i < numRequests; i++) {
    const row = input.addRequest(i, CONTEXT, perRequest, 0, true);
    for (let j = 0; j < perRequest; j++) {
      input.setToken(row + j, (i * 7919 + j) % pass.shape.vocabSize);
      // All requests read block 0, and each writes to a block that no request reads.
      input.setSlot(row + j, 16 + row + j);
    }
  }
  input.end();
  return input;
}

async function idsOf(device: Device, pass: ForwardPass, input: StepInput, model: ModelConfig): Promise<Uint32Array> {
  const byteLength = 4 * input.numTokens * model.numLayers * model.topK;
  const readback = device.createBuffer('readback', byteLength, 'readback');
  device.submit((commands) => {
    pass.record(commands, input);
    commands.copy(pass.routedExperts, 0, readback, 0, byteLength);
  });
  const ids = await device.read(readback, byteLength, (bytes) => new Uint32Array(bytes.slice().buffer));
  readback.destroy();
  return ids;
}

/** Median microseconds of each pass; in every round each has its turn. */
async function medians(
  device: Device,
  passes: readonly Readonly<{ pass: ForwardPass; input: StepInput }>[],
): Promise<readonly number[]> {
  const time = async (at: number, repeats: number): Promise<number> => {
    const { pass, input } = passes[at]!;
    const nanoseconds = await device.time((commands) => {
      for (let i = 0; i < repeats; i++) pass.record(commands, input);
    });
    return nanoseconds / 1000 / repeats;
  };
  const times = passes.map((): number[] => []);
  const repeats: number[] = [];
  for (const i of passes.keys()) {
    await time(i, 1);
    repeats.push(Math.max(1, Math.min(60, Math.floor(PASS_US / (await time(i, 1))))));
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const i of passes.keys()) times[i]!.push(await time(i, repeats[i]!));
  }
  return times.map((list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)]!);
}
