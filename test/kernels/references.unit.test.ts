/**
 * The reference kernels and the oracle against slow, naive ones written from the design, and the rules that they must
 * keep.
 */

import { describe, expect, test } from 'vitest';
import { FROM_DEVICE, Header, StepInput } from '../../src/kernels/model/step-input.ts';
import type { ModelConfig, RouterConfig } from '../../src/contract/config.ts';
import { packGate } from '../../src/kernels/model/gate/gate-kernel.ts';
import { checkModel, kernelShape, packedBytes } from '../../src/kernels/model/kernel-shape.ts';
import { MODEL_NAMES, modelPreset } from '../../src/kernels/model/model-presets.ts';
import { Oracle, oracle } from '../../src/kernels/model/oracle.ts';
import { draftToken, gateSeed, gateWord, nextToken, scramble } from '../../src/kernels/model/mix/mix.ts';
import { pack } from '../../src/kernels/model/pack/pack.ts';
import { gateWeights } from '../../src/kernels/model/gate/gate.ts';
import { Router } from '../../src/kernels/model/route/route.ts';
import { chooseEngineRouter, engineRouterName, engineRouters } from '../../src/kernels/model/route/engine-router.ts';
import { SampledLayout } from '../../src/kernels/model/sample/sampled-layout.ts';
import { engineConfig, expectSame, model, randomNumbers } from './harness.ts';

/** u32 arithmetic with BigInt: slow, and free of any trick. */
const M = 0xffff_ffffn;
const mul = (a: bigint, b: bigint): bigint => (a * b) & M;
function slowScramble(value: bigint): bigint {
  let x = value & M;
  x = mul(x ^ (x >> 16n), 0x7feb352dn);
  x = mul(x ^ (x >> 15n), 0x846ca68bn);
  return x ^ (x >> 16n);
}

/** DESIGN §4, straight down: hidden state of every position of a sequence. */
function slowHidden(tokens: readonly number[], epoch: bigint): [x: bigint, y: bigint][] {
  let [sumX, sumY] = [0n, 0n];
  return tokens.map((token, p) => {
    const position = BigInt(p);
    const base = slowScramble(position + mul(epoch, 0x9e3779b1n));
    const keyX = slowScramble(BigInt(token) ^ base);
    const keyY = slowScramble(mul(BigInt(token), 0x85ebca6bn) + base);
    sumX = (sumX + slowScramble(keyX + mul(position, 0x9e3779b1n))) & M;
    sumY = (sumY + slowScramble(keyY ^ mul(position, 0xc2b2ae35n))) & M;
    const x = slowScramble(sumX ^ 0x243f6a88n);
    return [x, slowScramble(sumY + x)];
  });
}

/** Logits by a plain sum, then a stable sort: ties keep the order of ids. */
function slowRow(shape: ReturnType<typeof model>, x: number, y: number): number[] {
  const weights = gateWeights(shape);
  const row: number[] = [];
  for (let layer = 0; layer < shape.numLayers; layer++) {
    const inputs: number[] = [];
    for (let g = 0; g < shape.gateWidth; g++) {
      inputs.push(((gateWord(gateSeed(x, y, layer), Math.floor(g / 8)) >>> (4 * (g % 8))) & 15) - 8);
    }
    const logits = Array.from({ length: shape.numExperts }, (_, expert) =>
      inputs.reduce(
        (sum, input, g) => sum + input * weights[(layer * shape.numExperts + expert) * shape.gateWidth + g]!,
        0,
      ),
    );
    const ids = logits.map((_, id) => id).sort((a, b) => logits[b]! - logits[a]! || a - b);
    row.push(...ids.slice(0, shape.topK));
  }
  return row;
}

const ROUTE_SHAPES = [
  model(),
  model({ numExperts: 7, topK: 7 }),
  model({ numExperts: 128, topK: 8 }),
  model({ numLayers: 1, numExperts: 1024, topK: 32, gateWidth: 248 }),
  model({ numExperts: 33, topK: 1, gateWidth: 16 }),
  model({ numLayers: 1, numExperts: 1, topK: 1 }),
];

describe('hashing', () => {
  test('scramble is the published function, also above 2^31', () => {
    for (const value of [0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 123456789]) {
      expect(scramble(value) >>> 0).toBe(Number(slowScramble(BigInt(value))));
    }
  });

  test.each([0, 5])('the oracle equals the slow hidden states and the slow router, epoch %i', (epoch) => {
    const random = randomNumbers(7);
    const shape = model({ vocabSize: 200_000 });
    const tokens = Array.from({ length: 60 }, () => random(200_000));
    const hidden = slowHidden(tokens, BigInt(epoch));
    const sequence = new Oracle(new Router(shape));
    const row = new Uint32Array(shape.numLayers * shape.topK);
    for (const [p, [x, y]] of hidden.entries()) {
      const next = Number(slowScramble(x ^ mul(y, 0x9e3779b1n)) % BigInt(shape.vocabSize));
      expect(sequence.push(tokens[p]!, epoch)).toBe(next);
      sequence.row(row);
      expectSame(row, slowRow(shape, Number(x), Number(y)), `row ${p}`);
    }
    expect(sequence.position).toBe(60);
  });

  test('one token elsewhere, or two tokens swapped, changes all rows behind', () => {
    const tokens = [5, 6, 7, 8, 9, 10];
    const a = oracle(model(), tokens);
    const swapped = oracle(model(), [5, 7, 6, 8, 9, 10]);
    expectSame(swapped.rows.subarray(0, 12), a.rows.subarray(0, 12), 'row before');
    for (let p = 1; p < 6; p++) {
      expect([...swapped.rows.subarray(12 * p, 12 * p + 12)]).not.toEqual([...a.rows.subarray(12 * p, 12 * p + 12)]);
    }
  });

  test('tokens are inside the vocabulary; a draft is wrong in the share of cases that is asked for', () => {
    let wrong = 0;
    for (let i = 0; i < 10_000; i++) {
      const truth = nextToken(scramble(i), scramble(i + 1), 97);
      const draft = draftToken(scramble(i), scramble(i + 1), truth, 97, 0.3 * 2 ** 32);
      expect(truth).toBeLessThan(97);
      expect(draft).toBeLessThan(97);
      if (draft !== truth) wrong += 1;
    }
    expect(wrong).toBeGreaterThan(2_800);
    expect(wrong).toBeLessThan(3_200);
  });
});

const HOSTS = [
  [true, [4, 4]],
  [false, [32, 32]],
  [false, null],
] as const;

function chosen(
  shape: ModelConfig,
  isSoftware: boolean,
  subgroupSizes: readonly [number, number] | null,
  router?: RouterConfig,
): string {
  return engineRouterName(chooseEngineRouter(shape, { isSoftware, subgroupSizes }, router));
}

describe('router', () => {
  test.each(ROUTE_SHAPES)(
    'E $numExperts K $topK G $gateWidth equals the stable sort, ties to the smaller id',
    (shape) => {
      const random = randomNumbers(11);
      const router = new Router(shape);
      const row = new Uint32Array(shape.numLayers * shape.topK);
      for (let i = 0; i < 50; i++) {
        const [x, y] = [random(2 ** 32) | 0, random(2 ** 32) | 0];
        router.route(x, y, row, 0);
        expectSame(row, slowRow(shape, x, y), `hidden ${x}, ${y}`);
      }
    },
  );

  test('ties do occur, at the boundary too', () => {
    const shape = model({ numLayers: 1, numExperts: 128, topK: 8 });
    const wider = new Router({ ...shape, topK: 9 });
    const weights = gateWeights(shape);
    let ties = 0;
    const row = new Uint32Array(9);
    for (let i = 0; i < 200; i++) {
      wider.route(scramble(i), i, row, 0);
      const word = gateWord(gateSeed(scramble(i), i, 0), 0);
      const logit = (id: number): number =>
        Array.from({ length: 8 }, (_, g) => (((word >>> (4 * g)) & 15) - 8) * weights[id * 8 + g]!).reduce(
          (a, b) => a + b,
        );
      if (logit(row[7]!) === logit(row[8]!)) ties += 1;
    }
    expect(ties).toBeGreaterThan(5);
  });

  test('extreme logits of the widest gate and of a pair stay exact in f32, raw sums share a word', () => {
    const largest = 64 * 248 * 1024 + 1023;
    expect(Math.fround(largest)).toBe(largest);
    expect(largest).toBeLessThan(2 ** 24);
    expect(1024 + 960 + 2048 * 960).toBeLessThan(2 ** 24);
    expect(225 * 248).toBeLessThan(2 ** 16);
  });

  test('one kernel where one is made for the device; else a gate and a router kernel', () => {
    const [gptOss, wideGate] = [modelPreset('gpt-oss-120b'), modelPreset('gpt-oss-120b', 16)];
    expect(chosen(gptOss, false, [32, 32])).toBe('fused-rounds-s32');
    expect(chosen(gptOss, false, [16, 32])).toBe('fused-rounds-s16+');
    expect(chosen(gptOss, false, [4, 4])).toBe('fused-pairs-t64');
    expect(chosen(gptOss, false, null)).toBe('fused-pairs-t64');
    expect(chosen(gptOss, true, [4, 4])).toBe('fused-pairs-t16');
    expect(chosen(wideGate, true, [4, 4])).toBe('gate+portable-t16');
    expect(chosen(wideGate, false, null)).toBe('gate+portable-t64');
    expect(chosen(modelPreset('longcat-flash', 16), false, null)).toBe('gate+wide-t128');
    expect(chosen(modelPreset('longcat-flash'), true, null)).toBe('fused-pairs-t16');
    // Three groups of odd size share out neither lanes nor pairs.
    const groups = { count: 3, keep: 1, score: 'max' } as const;
    const thirds = model({ numExperts: 27, routingFunction: { groups } });
    expect(chosen(thirds, true, null)).toBe('gate+portable-t16');
    expect(chosen(thirds, false, [32, 32])).toBe('gate+subgroup-l4-m4x-q3');
  });

  test('a modular router is one kernel, or a gate and a router kernel, if one of them is asked for', () => {
    for (const shape of MODEL_NAMES.flatMap((name) => [modelPreset(name), modelPreset(name, 16)])) {
      for (const [isSoftware, subgroupSizes] of HOSTS) {
        expect(chosen(shape, isSoftware, subgroupSizes, { kind: 'modular', kernels: 'fused' })).toMatch(/^fused-/);
        expect(chosen(shape, isSoftware, subgroupSizes, { kind: 'modular', kernels: 'gated' })).toMatch(/^gate\+/);
      }
    }
  });

  test('a monolithic router is one kernel on every device', () => {
    const router = { kind: 'monolithic', hasRoutingReplay: true } as const;
    for (const shape of MODEL_NAMES.flatMap((name) => [modelPreset(name), modelPreset(name, 16)])) {
      for (const [isSoftware, subgroupSizes] of HOSTS) {
        expect(chosen(shape, isSoftware, subgroupSizes, router)).toMatch(/^fused-/);
        const all = engineRouters(shape, { isSoftware, subgroupSizes }, router);
        expect(all.every(({ isFused }) => isFused)).toBe(true);
      }
    }
  });

  test('a pair of experts shares an f32 from which both come back', () => {
    const shape = model();
    const plain = gateWeights(shape);
    const pairs = new Float32Array(packGate(shape, 2).buffer);
    for (let expert = 0; expert < shape.numExperts; expert++) {
      const value = pairs[(expert >> 1) * 8]!;
      expect((expert % 2 === 0 ? value % 2048 : Math.floor(value / 2048)) - 8).toBe(plain[expert * 8]);
    }
  });
});

describe('pack', () => {
  test.each([
    [16, Uint8Array],
    [256, Uint8Array],
    [257, Uint16Array],
    [1024, Uint16Array],
  ])('E %i: ids as %o, little-endian, dense', (numExperts, Narrow) => {
    const shape = model({ numExperts, topK: 3, numLayers: 1 });
    const ids = Uint32Array.from({ length: 30 }, (_, i) => (i * 37) % numExperts);
    const packed = new Uint32Array(8).fill(0xffffffff);
    pack(shape, ids, Uint32Array.of(3, 9, 0, 4), packed);
    const narrow = new Narrow(packed.buffer);
    expectSame(
      narrow.slice(0, 9),
      [27, 28, 29, 0, 1, 2, 12, 13, 14].map((i) => ids[i]!),
      'ids',
    );
    const words = packedBytes(shape, 3) / 4;
    expect(packed[words]).toBe(0xffffffff);
    expect(narrow[9]).toBe(0);
  });
});

describe('step input', () => {
  const shape = kernelShape(model(), engineConfig({ numSpeculativeTokens: 2 }));

  test('the sections lie as the picture says', () => {
    const input = new StepInput(shape);
    input.begin(3, 2, 1, 4);
    expect(input.addRequest(5, 10, 2, 1, true)).toBe(0);
    expect(input.addRequest(6, 0, 1, 0, false)).toBe(2);
    input.setTokens(0, Uint32Array.of(7, FROM_DEVICE));
    input.setToken(2, 8);
    input.addTableUpdate(5, 1, 33);
    input.end();
    expectSame(
      input.words.subarray(0, input.numWords),
      [3, 2, 1, 4, 11, 14, 30, 0, 7, FROM_DEVICE, 8, 0, 0, 1, 5, 10, 2, 0, 1, 1, 0, 0, 6, 0, 1, 2, 0, 0, 0, 0].concat([
        5 * shape.maxBlocksPerSeq + 1,
        33,
      ]),
      'words',
    );
    expect(input.words[Header.tableUpdates]).toBe(input.numWords - 2);
  });

  test('what does not fit, or does not come, is an error', () => {
    const input = new StepInput(shape);
    expect(() => input.begin(shape.maxNumBatchedTokens + 1, 1, 0)).toThrow('at most 64 fit');
    expect(() => input.begin(1, shape.maxNumSeqs + 1, 0)).toThrow('requests of a step');
    input.begin(2, 1, 0);
    expect(() => input.addRequest(0, 0, 3, 0, true)).toThrow('was given more');
    expect(() => input.addRequest(0, 0, 2, 2, true)).toThrow('2 drafts among 2 tokens');
    expect(() => input.addTableUpdate(0, 0, 1)).toThrow('has no place');
    expect(() => input.end()).toThrow('announced 2 tokens, 1 requests, 0 table updates; got 0, 0, 0');
  });

  test('a sampled record holds count, tokens and drafts', () => {
    const layout = new SampledLayout(2);
    expect([layout.stride, layout.byteLength(3), layout.tokensAt(1), layout.draftsAt(1)]).toEqual([6, 72, 7, 10]);
    expect(layout.count(Uint32Array.of(1, 0, 0, 0, 0, 0, 2), 1)).toBe(2);
  });
});

describe('models', () => {
  test.each(MODEL_NAMES)('%s fits the kernels', (name) => {
    expect(() => checkModel(modelPreset(name))).not.toThrow();
  });

  test('an unknown name lists what there is; a shape over the limits is named', () => {
    expect(() => modelPreset('gpt-5')).toThrow(/unknown model "gpt-5"; choose one of: gpt-oss-120b, .*tiny/);
    expect(() => checkModel(model({ topK: 17 }))).toThrow('topK is 17; give a whole number in [1, 16]');
    expect(() => checkModel(model({ gateWidth: 12 }))).toThrow('gateWidth is 12; give a multiple of 8');
    expect(() => checkModel(model({ numExperts: 2000 }))).toThrow('numExperts is 2000');
  });
});
