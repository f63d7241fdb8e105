// EPLB places as the original does where nothing ties, and by ascending index where something does; what a placement
// would have gained is judged on windows that it was not fitted on.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { eplb } from '../../src/analysis/placement/eplb.ts';
import { mapForms, readMap, writeMap } from '../../src/analysis/placement/map-files.ts';
import { placementOf, gpuLoadsOf, gpusWithDuplicates } from '../../src/analysis/placement/placement.ts';
import { reductionInterval } from '../../src/analysis/placement/ratio-interval.ts';
import { Screener } from '../../src/analysis/placement/screening.ts';
import { slotsChanged, vllmPolicy } from '../../src/analysis/placement/vllm-policy.ts';
import { randomOf } from './disturbed.ts';

const SHAPE = { numReplicas: 16, numGroups: 4, numNodes: 2, numGpus: 8 };
/** The example of the original's README: two layers, twelve experts in four groups. */
const WEIGHT = [
  [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
];

describe('eplb', () => {
  test("places the original's own example as it does", () => {
    const { physicalToLogical } = eplb(WEIGHT, SHAPE);
    expect(physicalToLogical.map((slots) => [...slots])).toEqual([
      [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
      [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]);
  });

  test('gives every expert a slot, every GPU as many, and hands out equals by ascending index', () => {
    const loads = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 12, maxLength: 12 });
    const check = fc.property(loads, (layer) => {
      const { physicalToLogical, logicalCount, logicalToPhysical } = eplb([layer], SHAPE);
      expect(new Set(physicalToLogical[0]).size).toBe(12);
      logicalToPhysical[0]!.forEach((slots, expert) => {
        expect(slots).toHaveLength(logicalCount[0]![expert]!);
        for (const slot of slots) expect(physicalToLogical[0]![slot]).toBe(expert);
      });
      const loadsOfGpus = gpuLoadsOf(placementOf(physicalToLogical, 12, 8), [layer])[0]!;
      const total = layer.reduce((sum, load) => sum + load, 0);
      expect(loadsOfGpus.reduce((sum, load) => sum + load, 0)).toBeCloseTo(total, 9);
    });
    fc.assert(check, { numRuns: 50 });
    const even = eplb([Array.from({ length: 4 }, () => 1)], { numReplicas: 6, numGroups: 1, numNodes: 1, numGpus: 2 });
    expect([...even.physicalToLogical[0]!]).toEqual([2, 0, 0, 3, 1, 1]);
  });

  test('quotients and running sums are f32', () => {
    // 2²⁴ + 1 is no f32: the loads are equal there, and the first goes first.
    const weight = [[16_777_216, 16_777_217, 1, 1]];
    const shape = { numReplicas: 5, numGroups: 1, numNodes: 1, numGpus: 1 };
    expect([...eplb(weight, shape).logicalCount[0]!]).toEqual([2, 1, 1, 1]);
  });

  test.each([
    [{ numReplicas: 11 }, /numReplicas is 11; give at least 12/],
    [{ numReplicas: 20 }, /numReplicas is 20; give a multiple of the 8 GPUs/],
    [{ numNodes: 3 }, /numGpus is 8; give a multiple of the 3 nodes/],
    [{ numGroups: 5 }, /numGroups is 5; give a divisor of the 12 experts/],
  ])('refuses %o', (change, message) => {
    expect(() => eplb(WEIGHT, { ...SHAPE, ...change })).toThrow(message);
  });
});

test("vLLM's policy keeps the slot of an expert that stays on its GPU", () => {
  const old = WEIGHT.map(() => Int32Array.from({ length: 16 }, (_, slot) => slot % 12));
  const fresh = vllmPolicy(WEIGHT, SHAPE);
  const kept = vllmPolicy(WEIGHT, SHAPE, old);
  expect(slotsChanged(old, kept)).toBeLessThan(slotsChanged(old, fresh));
  const loads = (maps: readonly Int32Array[]): readonly Float64Array[] => gpuLoadsOf(placementOf(maps, 12, 8), WEIGHT);
  expect(loads(kept)).toEqual(loads(fresh));
});

test('a GPU that holds an expert twice is a wasted slot', () => {
  expect(gpusWithDuplicates(placementOf([[0, 0, 1, 2]], 3, 2))).toBe(1);
  expect(gpusWithDuplicates(placementOf([[0, 1, 0, 2]], 3, 2))).toBe(0);
});

test.each(mapForms)('a map written in the form %s is read again', (form) => {
  const isOneLine = form === 'vllm-shared' || form === 'vllm-ranks';
  const physicalToLogical = isOneLine
    ? [[0, 2, 1, 3]]
    : [
        [0, 2, 1, 3, 3, 0],
        [3, 1, 2, 0, 1, 1],
      ];
  const text = writeMap(form, { layers: [3, 4], physicalToLogical, numGpus: 2 });
  const read = readMap(text, 'map');
  expect(read.physicalToLogical).toEqual(physicalToLogical);
  if (form === 'tensorrt-llm') expect(read.layers).toEqual([3, 4]);
});

test('maps of no form, and with lines of two lengths, are refused', () => {
  expect(() => readMap('{"a":1}', 'map')).toThrow(/map: a placement of no known form/);
  expect(() => readMap('[[0,1],[0]]', 'map')).toThrow(/line 1 has 1 slots, line 0 has 2/);
  expect(() => writeMap('vllm-ranks', { layers: [0], physicalToLogical: [[0, 0]], numGpus: 2 })).toThrow(/replicas/);
});

describe('screening', () => {
  const eplbShape = { numReplicas: 10, numGroups: 1, numNodes: 1, numGpus: 2 };
  const options = { numLayers: 1, numExperts: 8, topK: 2, eplb: eplbShape, windowSteps: 4 };

  function verdictOf(numSteps: number, stepOf: (step: number) => Uint32Array, numRows: number): string {
    const screener = new Screener(options);
    for (let step = 0; step < numSteps; step++) screener.add(stepOf(step), numRows);
    return screener.report().verdict;
  }

  test('load that stays on the experts of one GPU is worth a trial', () => {
    const steady = Uint32Array.of(20, 18, 16, 14, 2, 2, 2, 2);
    expect(verdictOf(16, () => steady, 38)).toBe('recommend_trial');
  });

  test('even load is not, noise is not, and few selections are too little data', () => {
    const random = randomOf(3);
    const noise = (): Uint32Array => Uint32Array.from({ length: 8 }, () => 8 + Math.floor(4 * random()));
    expect(verdictOf(16, noise, 38)).toBe('not_recommended_now');
    const steady = Uint32Array.of(2, 2, 2, 2, 0, 0, 0, 0);
    expect(verdictOf(16, () => steady, 4)).toBe('insufficient_evidence');
    expect(verdictOf(8, () => Uint32Array.of(20, 18, 16, 14, 2, 2, 2, 2), 38)).toBe('insufficient_evidence');
  });

  test('the placement for a window is judged on the next one', () => {
    // The busy GPU changes with every window: what was fitted is wrong each time.
    const screener = new Screener(options);
    for (let step = 0; step < 16; step++) {
      const isFirst = Math.floor(step / 4) % 2 === 0;
      screener.add(
        Uint32Array.from({ length: 8 }, (_, e) => (e < 1 === isFirst ? 40 : 4)),
        40,
      );
    }
    const { pairs, aggregateReduction } = screener.report();
    expect(pairs.map(({ a, b }) => [a, b])).toEqual([
      [0, 1],
      [1, 2],
      [2, 3],
    ]);
    expect(aggregateReduction!).toBeLessThan(0.25);
  });

  test('the interval holds the reduction, and is a point where every pass is alike', () => {
    expect(reductionInterval([[10, 8]])).toBeNull();
    const [low, high] = reductionInterval([
      [10, 8],
      [20, 16],
      [30, 24],
    ])!;
    expect([low, high].map((bound) => Number(bound.toFixed(9)))).toEqual([0.2, 0.2]);
    const wide = reductionInterval([
      [10, 5],
      [10, 9],
    ])!;
    expect(wide[0]).toBeLessThan(0.3);
    expect(wide[1]).toBeGreaterThan(0.3);
  });
});
