/**
 * Routing functions in the engine: the fixed-point reference against a slow version written from the definition,
 * against the published functions in f64 outside a margin, and what is refused.
 */

import { describe, expect, test } from 'vitest';
import type { ModelConfig, RoutingFunction } from '../../src/contract/config.ts';
import {
  EXP_ONE,
  RECIPROCAL_ONE,
  SCORE_ONE,
  choiceKind,
  ChoiceKind,
  lowestLogit,
  realLogit,
  scoreTable,
  selectionBias,
} from '../../src/kernels/model/gate/expert-scores.ts';
import { checkModel } from '../../src/kernels/model/kernel-shape.ts';
import { MODEL_NAMES, modelPreset } from '../../src/kernels/model/model-presets.ts';
import { gateSeed, gateWord } from '../../src/kernels/model/mix/mix.ts';
import { gateWeights } from '../../src/kernels/model/gate/gate.ts';
import { Router } from '../../src/kernels/model/route/route.ts';
import { routeRow } from '../../src/kernels/router/reference/router-reference.ts';
import { routingFunctionName, routingFunctionOf, selectsByLogit } from '../../src/kernels/router/routing-function.ts';
import { expectSame, model, randomNumbers } from './harness.ts';

/** Those whose selection is more than the K largest logits. */
const SCORED = MODEL_NAMES.map((name) => modelPreset(name)).filter((preset) => {
  const router = routingFunctionOf(preset);
  return !selectsByLogit(router) || router.groups !== null;
});

/** Logits `[L][E]` by a plain sum. */
function slowLogits(shape: ModelConfig, x: number, y: number): number[][] {
  const weights = gateWeights(shape);
  const { numLayers, numExperts, gateWidth } = shape;
  return Array.from({ length: numLayers }, (_layer, layer) => {
    const seed = gateSeed(x, y, layer);
    const inputs = Array.from(
      { length: gateWidth },
      (_, g) => ((gateWord(seed, Math.floor(g / 8)) >>> (4 * (g % 8))) & 15) - 8,
    );
    return Array.from({ length: numExperts }, (_expert, expert) =>
      inputs.reduce((sum, input, g) => sum + input * weights[(layer * numExperts + expert) * gateWidth + g]!, 0),
    );
  });
}

/** Places of the values, the largest first, of equals the smaller place. */
function descending(values: readonly bigint[]): number[] {
  return values.map((_, i) => i).sort((a, b) => (values[a] === values[b] ? a - b : values[a]! > values[b]! ? -1 : 1));
}

/** The definition in BigInt and sorts: choices, best groups, best experts; of equals the smaller id. */
function slowRow(shape: ModelConfig, logits: readonly number[], layer: number): number[] {
  const { numExperts, topK, gateWidth } = shape;
  const { hasSelectionBias, groups } = routingFunctionOf(shape);
  const table = scoreTable(shape);
  const biases = selectionBias(shape);
  const bias = (id: number): bigint => (hasSelectionBias ? BigInt(biases[layer * numExperts + id]!) : 0n);
  let choices = logits.map(BigInt);
  if (choiceKind(shape) === ChoiceKind.table) {
    choices = logits.map((logit, id) => BigInt(table[logit + lowestLogit(gateWidth)]!) + bias(id));
  } else if (choiceKind(shape) === ChoiceKind.softmax) {
    const largest = Math.max(...logits);
    const exponentials = logits.map((logit) => BigInt(table[largest - logit]!));
    const reciprocal = BigInt(RECIPROCAL_ONE) / exponentials.reduce((a, b) => a + b);
    choices = exponentials.map((e, id) => (e * reciprocal) / 2048n + bias(id));
  }
  let allowed = choices.map((_, id) => id);
  if (groups !== null) {
    const size = numExperts / groups.count;
    const scores = Array.from({ length: groups.count }, (_, g) => {
      const [first, second] = choices.slice(g * size, (g + 1) * size).sort((a, b) => (a > b ? -1 : a < b ? 1 : 0));
      return groups.score === 'max' ? first! : first! + second!;
    });
    const kept = new Set(descending(scores).slice(0, groups.keep));
    allowed = allowed.filter((id) => kept.has(Math.floor(id / size)));
  }
  return descending(allowed.map((id) => choices[id]!))
    .slice(0, topK)
    .map((place) => allowed[place]!);
}

const FUNCTIONS: readonly (readonly [Partial<ModelConfig>, Partial<RoutingFunction>])[] = [
  [
    { numExperts: 64, topK: 6 },
    { scoring: 'sigmoid', hasSelectionBias: true, groups: { count: 8, keep: 3, score: 'top2-sum' } },
  ],
  [
    { numExperts: 40, topK: 6 },
    { scoring: 'softmax', hasSelectionBias: false, groups: { count: 8, keep: 3, score: 'max' } },
  ],
  [
    { numExperts: 40, topK: 6 },
    { scoring: 'softmax', hasSelectionBias: false, groups: { count: 4, keep: 2, score: 'top2-sum' } },
  ],
  [
    { numExperts: 33, topK: 3 },
    { scoring: 'softmax', hasSelectionBias: true, groups: null },
  ],
  [
    { numExperts: 90, topK: 32, gateWidth: 16 },
    { scoring: 'sqrt-softplus', hasSelectionBias: true, groups: null },
  ],
  [
    { numExperts: 1024, topK: 8, numLayers: 1, gateWidth: 248 },
    { scoring: 'softmax', hasSelectionBias: true, groups: { count: 32, keep: 2, score: 'max' } },
  ],
];

describe('the fixed-point router', () => {
  test.each(FUNCTIONS)('%o %o equals the slow one, ties to the smaller id', (shape, routingFunction) => {
    const scored = model({ ...shape, routingFunction });
    const random = randomNumbers(17);
    const router = new Router(scored);
    const row = new Uint32Array(scored.numLayers * scored.topK);
    for (let i = 0; i < 40; i++) {
      const [x, y] = [random(2 ** 32) | 0, random(2 ** 32) | 0];
      router.route(x, y, row, 0);
      const expected = slowLogits(scored, x, y).flatMap((logits, layer) => slowRow(scored, logits, layer));
      expectSame(row, expected, `hidden ${x}, ${y}`);
    }
  });

  /**
   * Choices nearer than this, in units of 1, may be ranked either way: half a step of a score, and of the softmax's
   * shared factor.
   */
  const MARGIN = { sigmoid: 2e-6, 'sqrt-softplus': 8e-6, softmax: 3e-5 } as const;

  test.each(SCORED)('$name chooses as the published function in f64, outside a margin', (preset) => {
    const scored = { ...preset, numLayers: 2 };
    const f64 = routingFunctionOf(scored);
    const { numExperts, topK, scoring, hasSelectionBias, groups } = f64;
    const unit = scoring === 'sqrt-softplus' ? SCORE_ONE / 4 : SCORE_ONE;
    const biases = Array.from(selectionBias(scored), (bias) => bias / unit);
    const router = new Router(scored);
    const row = new Uint32Array(2 * topK);
    const random = randomNumbers(23);
    let [equal, close] = [0, 0];
    for (let i = 0; i < 60; i++) {
      const [x, y] = [random(2 ** 32) | 0, random(2 ** 32) | 0];
      router.route(x, y, row, 0);
      for (const [layer, logits] of slowLogits(scored, x, y).entries()) {
        const bias = hasSelectionBias ? biases.slice(layer * numExperts, (layer + 1) * numExperts) : null;
        const { ids, choices, groupScores } = routeRow(
          f64,
          logits.map((logit) => realLogit(logit, 8)),
          bias,
        );
        const own = [...row.subarray(layer * topK, (layer + 1) * topK)];
        if (own.every((id, k) => id === ids[k])) {
          equal += 1;
          continue;
        }
        const margin = MARGIN[scoring as keyof typeof MARGIN];
        const isCloseChoice = own.some((id, k) => Math.abs(choices[id]! - choices[ids[k]!]!) < margin && id !== ids[k]);
        const sorted = groupScores.toSorted((a, b) => b - a);
        const isCloseGroup = groups !== null && sorted[groups.keep - 1]! - sorted[groups.keep]! < 2 * margin;
        expect(isCloseChoice || isCloseGroup, `${own.join()} or ${ids.join()}`).toBe(true);
        close += 1;
      }
    }
    expect(equal).toBeGreaterThan(100);
    expect(close).toBeLessThan(20);
  });

  test.each(SCORED)('$name: bias and groups change what plain top-k would choose, and not everything', (preset) => {
    const scored = { ...preset, numLayers: 2 };
    const { routingFunction: _, ...plain } = scored;
    const [router, other] = [new Router(scored), new Router(plain)];
    const [row, plainRow] = [new Uint32Array(2 * scored.topK), new Uint32Array(2 * scored.topK)];
    let [different, shared] = [0, 0];
    for (let i = 0; i < 200; i++) {
      router.route(Math.imul(i, 0x9e3779b1), i, row, 0);
      other.route(Math.imul(i, 0x9e3779b1), i, plainRow, 0);
      if (row.some((id, k) => id !== plainRow[k])) different += 1;
      if (row.some((id) => plainRow.includes(id))) shared += 1;
    }
    expect(different).toBeGreaterThan(20);
    expect(shared).toBeGreaterThan(150);
  });

  /**
   * Experts whose weights are small are never among the best logits; a bias should leave about as many in play as there
   * are.
   */
  test.each(SCORED)('$name: biases and groups leave most experts in play', (preset) => {
    const scored = { ...preset, numLayers: 1 };
    const { routingFunction: _, ...plain } = scored;
    const [chosen, chosenByPlain] = [scored, plain].map((shape) => {
      const router = new Router(shape);
      const row = new Uint32Array(shape.topK);
      const seen = new Set<number>();
      for (let i = 0; i < 3000; i++) {
        router.route(Math.imul(i, 0x9e3779b1), i, row, 0);
        for (const id of row) seen.add(id);
      }
      return seen.size;
    });
    expect(chosen).toBeGreaterThan(0.7 * chosenByPlain!);
  });
});

describe('what a key has room for', () => {
  const names = SCORED.map(({ name }) => name).filter((name) => name !== 'deepseek-v2');

  test.each(names)('%s, any gate width: scores, biases and keys stay where the arithmetic needs them', (name) => {
    for (const gateWidth of [8, 16, 248]) {
      const scored = modelPreset(name, gateWidth);
      const table = scoreTable(scored);
      const bias = selectionBias(scored);
      const isSoftmax = choiceKind(scored) === ChoiceKind.softmax;
      expect(table).toHaveLength(120 * gateWidth + 1);
      expect(Math.min(...table)).toBeGreaterThanOrEqual(0);
      expect(Math.max(...table)).toBeLessThanOrEqual(isSoftmax ? EXP_ONE : SCORE_ONE);
      const [lowest, highest] = bias.reduce(([low, high], b) => [Math.min(low, b), Math.max(high, b)], [0, 0]);
      expect(lowest).toBeLessThan(0);
      expect((lowest - 1) * 1024).toBeGreaterThanOrEqual(-(2 ** 31));
      expect((SCORE_ONE + highest) * 1024 + 1023).toBeLessThan(2 ** 31);
    }
  });

  test('the table is that of the published functions at known points', () => {
    const sigmoid = scoreTable(modelPreset('kimi-k2'));
    const zero = lowestLogit(8);
    expect([sigmoid[zero], sigmoid[zero + 32], sigmoid[zero - 32]]).toEqual([524_288, 766_570, 282_006]);
    const softplus = scoreTable(modelPreset('deepseek-v4-flash'));
    expect([softplus[zero], softplus[zero + 64], softplus[0]]).toEqual([218_249, 382_311, 239]);
    const softmax = scoreTable(modelPreset('longcat-flash'));
    expect([softmax[0], softmax[32], softmax[960]]).toEqual([131_072, 48_219, 0]);
  });
});

function nameOf(preset: string): string {
  return routingFunctionName(routingFunctionOf(modelPreset(preset)));
}

function grouped(groups: Readonly<{ count: number; keep: number; score: string }>): ModelConfig {
  return model({
    routingFunction: { scoring: 'sigmoid', hasSelectionBias: true, groups } as RoutingFunction,
  });
}

describe('routing functions', () => {
  test('a name says E, K and what is not as in plain top-k', () => {
    expect(['deepseek-v3', 'deepseek-v2', 'kimi-k3', 'longcat-flash', 'grok-1'].map(nameOf)).toEqual([
      'e256-k8-sigmoid-bias-g8x4-top2-sum',
      'e160-k6-softmax-g8x3-max',
      'e896-k16-sigmoid-bias',
      'e768-k12-softmax-bias',
      'e8-k2-softmax',
    ]);
    expect(routingFunctionName(routingFunctionOf(model()))).toBe('e16-k4-softmax');
  });

  test.each([
    [grouped({ count: 3, keep: 1, score: 'max' }), 'groups is 3; give a divisor of the 16 experts'],
    [grouped({ count: 33, keep: 1, score: 'max' }), 'groups is 33; give a whole number in [1, 16]'],
    [grouped({ count: 4, keep: 5, score: 'max' }), 'topkGroups is 5; give a whole number in [1, 4]'],
    [grouped({ count: 4, keep: 0, score: 'max' }), 'topkGroups is 0'],
    [grouped({ count: 4.5, keep: 1, score: 'max' }), 'groups is 4.5'],
    [grouped({ count: 16, keep: 8, score: 'top2-sum' }), 'groups is 16; give groups of two experts or more'],
    [grouped({ count: 8, keep: 1, score: 'max' }), 'topK is 4; give at most the 2 experts of the kept groups'],
    [grouped({ count: 4, keep: 2, score: 'mean' }), 'unknown groupScore "mean"; choose one of: max, top2-sum'],
    [
      model({ routingFunction: { scoring: 'topk-softmax', hasSelectionBias: true, groups: null } }),
      'scoring is topk-softmax; give one that scores all experts',
    ],
    [
      model({ routingFunction: { scoring: 'tanh' as 'softmax', hasSelectionBias: true, groups: null } }),
      'unknown scoring "tanh"',
    ],
  ])('%#: a function that the shape does not allow is named', (bad, message) => {
    expect(() => checkModel(bad)).toThrow(message);
  });
});
