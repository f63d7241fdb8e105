/**
 * Each kernel on random inputs against its reference, over all buffers that it can reach: what it should not write must
 * stay, too.
 */

import { expect, test } from 'vitest';
import type { ModelConfig, RouterConfig, RouterScoring } from '../../src/contract/config.ts';
import type { Device, Kernel } from '../../src/contract/device.ts';
import type { GateKernel, KernelSet } from '../../src/kernels/model/kernel-set.ts';
import { packWorkgroups } from '../../src/kernels/model/kernel-set.ts';
import type { KernelShape } from '../../src/kernels/model/kernel-shape.ts';
import { kernelShape } from '../../src/kernels/model/kernel-shape.ts';
import { routingReplayWords } from '../../src/kernels/model/routing-replay/routing-replay.ts';
import type { EngineRouter } from '../../src/kernels/model/route/engine-router.ts';
import { engineRouters } from '../../src/kernels/model/route/engine-router.ts';
import { FROM_DEVICE, StepInput } from '../../src/kernels/model/step-input.ts';
import { wgslKernels, wgslKernelsFor, wgslKernelsWith } from '../../src/kernels/model/wgsl-kernels.ts';
import { engineConfig, expectSame, model, randomNumbers, randomWords, readWords } from './harness.ts';

type Random = (below: number) => number;

/** Runs a kernel and its reference on copies of `inputs`, and compares every buffer. */
async function expectKernel(
  device: Device,
  kernel: Kernel,
  grid: readonly [number, number],
  inputs: readonly Uint32Array[],
): Promise<void> {
  const buffers = inputs.map((words, i) => {
    const buffer = device.createBuffer(`binding ${i}`, words.byteLength, 'storage');
    device.write(buffer, 0, words);
    return buffer;
  });
  const bound = await device.bind(kernel, buffers);
  device.submit((commands) => commands.dispatch(bound, ...grid));
  const expected = inputs.map((words) => words.slice());
  kernel.reference(expected, [...grid, 1]);
  for (const [i, buffer] of buffers.entries()) {
    const actual = await readWords(device, buffer, inputs[i]!.length);
    expectSame(actual, expected[i]!, `${kernel.name}, binding ${i} (${kernel.bindings[i]})`);
    buffer.destroy();
  }
}

/**
 * A step of random requests with disjoint slots and table entries, some shared blocks, some tokens that only the device
 * knows.
 */
function randomStep(shape: KernelShape, random: Random): StepInput {
  const input = new StepInput(shape);
  const requests = Array.from({ length: 1 + random(shape.maxNumSeqs) }, (_, batchSlot) => {
    const count = 1 + random(7);
    const numDrafts = random(Math.min(count, shape.numSpeculativeTokens + 1));
    return { batchSlot, count, numDrafts, start: random(40) };
  });
  const numTokens = requests.reduce((n, { count }) => n + count, 0);
  const updates = requests.flatMap(({ batchSlot }) =>
    random(2) === 0 ? [[batchSlot, random(shape.maxBlocksPerSeq)]] : [],
  );
  input.begin(numTokens, requests.length, updates.length, random(2) === 0 ? 0 : random(1000));
  const slots = Array.from({ length: shape.numSlots }, (_, i) => i).sort(() => random(3) - 1);
  for (const { batchSlot, count, numDrafts, start } of requests) {
    const row = input.addRequest(batchSlot, start, count, numDrafts, random(4) > 0);
    for (let i = 0; i < count; i++) {
      const known = i < count - 1 - numDrafts || random(2) === 0;
      input.setToken(row + i, known ? random(shape.vocabSize) : FROM_DEVICE);
      input.setSlot(row + i, slots.pop()!);
    }
  }
  for (const [batchSlot, block] of updates)
    input.addTableUpdate(batchSlot!, block!, random(shape.numSlots / shape.blockSize));
  input.end();
  return input;
}

type Case = Readonly<{ kernels: KernelSet; shape: KernelShape; random: Random; input: StepInput; device: Device }>;

const ROUTERS: readonly Readonly<{ name: string; router: RouterConfig }>[] = [
  { name: 'modular', router: { kind: 'modular' } },
  { name: 'monolithic', router: { kind: 'monolithic', hasRoutingReplay: true } },
  { name: 'monolithic without routing_replay_out', router: { kind: 'monolithic', hasRoutingReplay: false } },
];

/** Bindings are made for each case: a kernel's reference may write only what its WGSL writes. */
const CASES: Readonly<Record<string, (c: Case) => Promise<void>>> = {
  'attend-write': async ({ device, kernels, shape, random, input }) =>
    expectKernel(device, kernels.attendWrite.kernel, kernels.attendWrite.grid(input), [
      input.words,
      input.slotMapping,
      randomWords(random, shape.maxNumSeqs * (1 + shape.numSpeculativeTokens)),
      randomWords(random, 2 * shape.numSlots),
      randomWords(random, shape.maxNumSeqs * shape.maxBlocksPerSeq),
    ]),
  attend: async ({ device, kernels, shape, random, input }) =>
    expectKernel(device, kernels.attend.kernel, kernels.attend.grid(input), [
      input.words,
      randomWords(random, 2 * shape.numSlots),
      randomWords(random, shape.maxNumSeqs * shape.maxBlocksPerSeq).map(
        (word) => word % (shape.numSlots / shape.blockSize),
      ),
      randomWords(random, 4 * shape.maxNumBatchedTokens),
    ]),
  route: async (step) => {
    const { device, kernels, shape, random, input } = step;
    const hidden = randomWords(random, 4 * shape.maxNumBatchedTokens);
    const ids = randomWords(random, shape.maxNumBatchedTokens * shape.numLayers * shape.topK);
    const gateInputs = [input.words, hidden, kernels.gateWeights()];
    if (kernels.gate) await runInChunks(step, kernels.gate, gateInputs, ids);
    else await expectKernel(device, kernels.route.kernel, kernels.route.grid(input), [...gateInputs, ids]);
  },
  fold: async ({ device, kernels, shape, random, input }) => {
    const received = randomWords(random, 2 * shape.maxNumBatchedTokens);
    const hidden = randomWords(random, 4 * shape.maxNumBatchedTokens);
    // Some states are equal, some differ in one word, most in both.
    for (let row = 0; row < shape.maxNumBatchedTokens; row += 3) {
      hidden[4 * row] = received[2 * row]!;
      if (row % 2 === 0) hidden[4 * row + 1] = received[2 * row + 1]!;
    }
    const inputs = [input.words, received, hidden];
    await expectKernel(device, kernels.fold.kernel, kernels.fold.grid(input), inputs);
  },
  sample: async ({ device, kernels, shape, random, input }) =>
    expectKernel(device, kernels.sample.kernel, kernels.sample.grid(input), [
      input.words,
      randomWords(random, 4 * shape.maxNumBatchedTokens),
      randomWords(random, shape.maxNumSeqs * (2 + 2 * shape.numSpeculativeTokens)),
      randomWords(random, shape.maxNumSeqs * (1 + shape.numSpeculativeTokens)),
    ]),
};

/** The gate, chunk by chunk, and the router behind it on what the gate's reference wrote. */
async function runInChunks(
  { device, kernels, shape, random, input }: Case,
  { kernel, grid, chunkTokens }: GateKernel,
  gateInputs: readonly Uint32Array[],
  ids: Uint32Array,
): Promise<void> {
  for (let start = 0; start < input.numTokens; start += chunkTokens) {
    const numTokens = Math.min(chunkTokens, input.numTokens - start);
    const sizes = { numTokens, numRequests: input.numRequests, numTableUpdates: 0 };
    const params = Uint32Array.of(random(1000), start * shape.numLayers);
    const choices = randomWords(random, chunkTokens * shape.numLayers * shape.numExperts).map((word) => word >>> 2);
    await expectKernel(device, kernel, grid(sizes), [...gateInputs, params, choices]);
    kernel.reference([...gateInputs, params, choices], [...grid(sizes), 1]);
    await expectKernel(device, kernels.route.kernel, kernels.route.grid(sizes), [params, choices, ids]);
  }
}

/** A monolithic router's buffers: what a modular one writes is not among them. */
async function runMonolithic({ device, kernels, shape, random, input }: Case, hasReplay: boolean): Promise<void> {
  const outputs = [randomWords(random, shape.maxNumBatchedTokens * shape.numLayers)];
  if (hasReplay) outputs.push(randomWords(random, routingReplayWords(shape, shape.maxNumBatchedTokens)));
  const inputs = [input.words, randomWords(random, 4 * shape.maxNumBatchedTokens), kernels.gateWeights()];
  await expectKernel(device, kernels.route.kernel, kernels.route.grid(input), [...inputs, ...outputs]);
}

type Shape = Readonly<{
  title: string;
  model: ModelConfig;
  numSpeculativeTokens?: number;
  draftAcceptanceRate?: number;
}>;

const SHAPES: readonly Shape[] = [
  { title: 'l3-e16-k4', model: model(), numSpeculativeTokens: 0 },
  {
    title: 'l2-e256-k8 with drafts',
    model: model({ numLayers: 2, numExperts: 256, topK: 8 }),
    numSpeculativeTokens: 3,
  },
  {
    title: 'l1-e33-k5-g24',
    model: model({ numLayers: 1, numExperts: 33, topK: 5, gateWidth: 24 }),
    numSpeculativeTokens: 1,
    draftAcceptanceRate: 1,
  },
  {
    title: 'l2-e300-k6',
    model: model({ numLayers: 2, numExperts: 300, topK: 6 }),
    numSpeculativeTokens: 2,
    draftAcceptanceRate: 0,
  },
  { title: 'l2-e2-k1', model: model({ numLayers: 2, numExperts: 2, topK: 1 }), numSpeculativeTokens: 0 },
  {
    title: 'l1-e1024-k32-g16',
    model: model({ numLayers: 1, numExperts: 1024, topK: 32, gateWidth: 16 }),
    numSpeculativeTokens: 0,
  },
  { title: 'sigmoid, bias, groups by two', model: scored(2, 64, 6, 'sigmoid', true, [8, 3, 'top2-sum']) },
  { title: 'softmax, groups by best', model: scored(2, 40, 6, 'softmax', false, [4, 2, 'max']) },
  { title: 'softmax, groups by two', model: scored(1, 24, 5, 'softmax', false, [3, 1, 'top2-sum']) },
  {
    title: 'sigmoid, bias, groups that share a lane group',
    model: scored(2, 28, 4, 'sigmoid', true, [2, 1, 'top2-sum']),
  },
  {
    title: 'sqrt-softplus, bias, groups of a lane',
    model: scored(2, 44, 5, 'sqrt-softplus', true, [4, 3, 'top2-sum']),
  },
  { title: 'softmax, bias', model: scored(2, 33, 3, 'softmax', true, null) },
  { title: 'softmax, bias, an even E', model: scored(2, 36, 6, 'softmax', true, null) },
  { title: 'softmax, bias, the widest', model: scored(1, 1024, 32, 'softmax', true, null, 24) },
  { title: 'sqrt-softplus, bias', model: scored(2, 70, 5, 'sqrt-softplus', true, null) },
  { title: 'sigmoid, bias, as many groups as there may be', model: scored(1, 64, 7, 'sigmoid', true, [32, 9, 'max']) },
  { title: 'layers of a stage, softmax, bias', model: { ...scored(2, 36, 6, 'softmax', true, null), firstLayer: 5 } },
  { title: 'l2-e300-k7', model: model({ numLayers: 2, numExperts: 300, topK: 7 }) },
];

function scored(
  numLayers: number,
  numExperts: number,
  topK: number,
  scoring: RouterScoring,
  hasSelectionBias: boolean,
  groups: readonly [count: number, keep: number, score: 'max' | 'top2-sum'] | null,
  gateWidth: number = 8,
): ModelConfig {
  const [count, keep, score] = groups ?? [1, 1, 'max'];
  const routingFunction = { scoring, hasSelectionBias, groups: groups === null ? null : { count, keep, score } };
  return model({ numLayers, numExperts, topK, gateWidth, routingFunction });
}

/** What a monolithic router puts out depends on K (even, odd, one), and on whether an id fits a byte. */
const WITH_MONOLITHIC = [
  'l3-e16-k4',
  'l1-e33-k5-g24',
  'l2-e2-k1',
  'sigmoid, bias, groups by two',
  'softmax, bias',
  'l2-e300-k6',
  'l2-e300-k7',
];

/** Without `routing_replay_out` only expert work comes out: neither the parity of K nor the width of an id shows. */
const WITHOUT_REPLAY = ['l3-e16-k4', 'sigmoid, bias, groups by two'];

/**
 * The fused portable kernel computes a score at a time. That depends on the scoring and on the width of the gate. Its
 * selection is the module that `gate+portable` runs, for each shape.
 */
const WITH_FUSED_PORTABLE = [
  'l3-e16-k4',
  'l1-e33-k5-g24',
  'l1-e1024-k32-g16',
  'sigmoid, bias, groups by two',
  'softmax, groups by two',
  'softmax, bias',
  'sqrt-softplus, bias',
  'l2-e300-k7',
];

/**
 * These show what gate and fused logits are to the slow variants, which have their own tests in
 * router.contract.test.ts.
 */
const WITH_ALL_VARIANTS = ['sigmoid, bias, groups by two', 'softmax, bias, an even E'];

/** A software adapter takes seconds to compile some kernels: these run for shapes that show something of their own. */
function isTried({ isFused, variant }: EngineRouter, title: string): boolean {
  if (['subgroup', 'wide', 'rounds'].includes(variant.algorithm)) return WITH_ALL_VARIANTS.includes(title);
  return !isFused || variant.algorithm !== 'portable' || WITH_FUSED_PORTABLE.includes(title);
}

export function runKernelCases(device: () => Device): void {
  for (const [index, { title, model: modelConfig, numSpeculativeTokens = 0, ...drafts }] of SHAPES.entries()) {
    const shape = kernelShape(modelConfig, engineConfig({ numSpeculativeTokens }), drafts.draftAcceptanceRate);
    const routers = ROUTERS.slice(0, WITHOUT_REPLAY.includes(title) ? 3 : WITH_MONOLITHIC.includes(title) ? 2 : 1);
    test.each(Object.keys(CASES))(`%s, ${title}: equal to its reference`, async (name) => {
      const random = randomNumbers(100 + index);
      const kernels = wgslKernels(modelConfig, shape, device().info);
      for (let round = 0; round < 6; round++) {
        await CASES[name]!({ device: device(), kernels, shape, random, input: randomStep(shape, random) });
      }
    });

    test.each(routers)(`route, ${title}: every variant that the device can run, $name`, async ({ router }) => {
      const { info } = device();
      const [chosen, ...others] = engineRouters(modelConfig, info, router);
      const tried = others.filter((engineRouter) => isTried(engineRouter, title));
      // The chosen modular one has been run above.
      if (router.kind === 'monolithic') tried.unshift(chosen!);
      for (const engineRouter of tried) {
        const random = randomNumbers(200 + index);
        // A device that binds so little has the gate take 16 tokens at once.
        const small = { ...info, maxStorageBufferBytes: 4 };
        const kernels = wgslKernelsWith(modelConfig, shape, small, engineRouter, router);
        for (let round = 0; round < 3; round++) {
          const step = { device: device(), kernels, shape, random, input: randomStep(shape, random) };
          if (router.kind === 'modular') await CASES['route']!(step);
          else await runMonolithic(step, router.hasRoutingReplay);
        }
      }
    });

    test.each(routers.slice(0, 2))(
      `pack, ${title}: any rows in any order, none, and all, $name`,
      async ({ router }) => {
        const random = randomNumbers(300 + index);
        const kernels = wgslKernelsFor(router)(modelConfig, shape, device().info);
        const rowLength = shape.numLayers * shape.topK;
        let ids = randomWords(random, shape.maxNumBatchedTokens * rowLength).map((word) => word % shape.numExperts);
        if (router.kind === 'monolithic') {
          const narrow = Uint16Array.from(
            [...ids, ...ids].slice(0, 2 * routingReplayWords(shape, shape.maxNumBatchedTokens)),
          );
          ids = new Uint32Array(narrow.buffer);
          const input = randomStep(shape, random);
          const expanded = randomWords(random, shape.maxNumBatchedTokens * rowLength);
          const { kernel, grid } = kernels.expand!;
          await expectKernel(device(), kernel, grid(input), [ids, input.words, expanded]);
        }
        for (const count of [0, 1, 2, 3, 17, shape.maxNumBatchedTokens]) {
          const rows = randomWords(random, 1 + shape.maxNumBatchedTokens).map(
            (word) => word % shape.maxNumBatchedTokens,
          );
          rows[0] = count;
          const packed = randomWords(random, shape.maxNumBatchedTokens * rowLength);
          for (const workgroups of [1, packWorkgroups(modelConfig, count)]) {
            await expectKernel(device(), kernels.pack, [workgroups, 1], [ids, rows, packed]);
          }
        }
      },
    );
  }

  test.each([true, false])(
    'attend as a software adapter runs it (%s), contexts of up to 3,000 tokens',
    async (isSoftware) => {
      const starts = [0, 1, 127, 383, 384, 385, 511, 512, 513, 896, 2047, 3000];
      const shape = kernelShape(
        model(),
        engineConfig({ blockSize: 5, numBlocks: 900, maxModelLen: 3100, maxNumSeqs: 12 }),
      );
      const random = randomNumbers(400);
      const { kernel, grid } = wgslKernels(model(), shape, { ...device().info, isSoftware }).attend;
      const input = new StepInput(shape);
      input.begin(2 * starts.length, starts.length, 0);
      for (const [i, start] of starts.entries()) input.addRequest(i, start, 2, 0, true);
      input.end();
      await expectKernel(device(), kernel, grid(input), [
        input.words.slice(0, input.numWords),
        randomWords(random, 2 * shape.numSlots),
        Uint32Array.from({ length: shape.maxNumSeqs * shape.maxBlocksPerSeq }, () => random(900)),
        randomWords(random, 4 * shape.maxNumBatchedTokens),
      ]);
    },
  );

  test('requests of one step that share a block see what the others write in it', async () => {
    const shape = kernelShape(model(), engineConfig());
    const kernels = wgslKernels(model(), shape, device().info);
    const input = new StepInput(shape);
    input.begin(5, 2, 2);
    const reader = input.addRequest(0, 4, 1, 0, true);
    const writer = input.addRequest(1, 0, 4, 0, true);
    input.setToken(reader, 9);
    input.setSlot(reader, 8);
    for (let i = 0; i < 4; i++) {
      input.setToken(writer + i, 20 + i);
      input.setSlot(writer + i, 4 + i);
    }
    input.addTableUpdate(0, 1, 2);
    input.addTableUpdate(1, 0, 1);
    input.end();
    const table = new Uint32Array(shape.maxNumSeqs * shape.maxBlocksPerSeq);
    table[0] = 1;
    const words = [
      input.words,
      input.slotMapping,
      new Uint32Array(shape.maxNumSeqs),
      new Uint32Array(2 * shape.numSlots),
      table,
      new Uint32Array(4 * shape.maxNumBatchedTokens),
    ];
    const buffers = words.map((data, i) => {
      const buffer = device().createBuffer(`shared ${i}`, data.byteLength, 'storage');
      device().write(buffer, 0, data);
      return buffer;
    });
    const [stepInput, slots, last, keys, blockTable, hidden] = buffers;
    const write = await device().bind(kernels.attendWrite.kernel, [stepInput!, slots!, last!, keys!, blockTable!]);
    const attend = await device().bind(kernels.attend.kernel, [stepInput!, keys!, blockTable!, hidden!]);
    device().submit((commands) => {
      commands.dispatch(write, ...kernels.attendWrite.grid(input));
      commands.dispatch(attend, ...kernels.attend.grid(input));
    });
    const [a, b, c, d, e, f] = words.map((data) => data.slice());
    kernels.attendWrite.kernel.reference([a!, b!, c!, d!, e!], [1, 1, 1]);
    kernels.attend.kernel.reference([a!, d!, e!, f!], [2, 1, 1]);
    expect(f![0]).not.toBe(0);
    expectSame(await readWords(device(), hidden!, f!.length), f!, 'hidden states');
  });
}
