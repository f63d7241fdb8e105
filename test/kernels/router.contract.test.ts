/**
 * Router kernels on whatever adapter there is, against the reference in f64 and against published models' own routers.
 * The recorded answers lie outside the repository, in ../shared/golden.
 */

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fuzzRouter } from '../../src/cli/kernels/fuzz.ts';
import type { VerifyDevice } from '../../src/cli/kernels/verify.ts';
import { goldenFiles, verifyFiles } from '../../src/cli/kernels/verify.ts';
import type { Device } from '../../src/contract/device.ts';
import { routeRow } from '../../src/kernels/router/reference/router-reference.ts';
import { countWrongIds, isGroupTie } from '../../src/kernels/router/router-check.ts';
import { routingFunction } from '../../src/kernels/router/routing-function.ts';
import { runRouter } from '../../src/kernels/router/router-run.ts';
import { routerVariants } from '../../src/kernels/router/router-variant.ts';
import { DEVICES, expectSame, randomNumbers } from './harness.ts';

const GOLDEN = fileURLToPath(new URL('../../../shared/golden/routers', import.meta.url));
const files = existsSync(GOLDEN) ? goldenFiles(GOLDEN) : [];
if (files.length === 0) console.warn(`SKIPPED: no recorded answers of real routers at ${GOLDEN}`);

/**
 * Compiling every variant of every function takes a software adapter a minute; these show what the variants differ in.
 */
const IN_EVERY_VARIANT = /(deepseek-v3|qwen3-30b-a3b|gpt-oss-20b|phi-3.5-moe)\.json$/;
const FUZZ_SEEDS = [1, 2, 3, 4, 5, 6];

describe.each(DEVICES)('$name', ({ open }) => {
  let device: Device;
  let portableOnly: VerifyDevice;

  beforeAll(async () => {
    device = await open();
    portableOnly = { device, host: device.info, isNull: false, algorithms: ['portable'] };
  });

  afterAll(async () => {
    await device.destroy();
  });

  test.skipIf(files.length === 0)(
    'answers of real routers, by the variant for software',
    { timeout: 120_000 },
    async () => {
      const { cases } = await verifyFiles(files, [portableOnly]);
      expect(cases.filter(({ ok }) => !ok)).toEqual([]);
      expect(cases.length).toBe(2 * files.length);
    },
  );

  test.skipIf(files.length === 0)('answers of real routers, in every variant', { timeout: 120_000 }, async () => {
    if (device.info.kind === 'cpu') return;
    const some = files.filter((file) => IN_EVERY_VARIANT.test(file));
    const { cases } = await verifyFiles(some, [{ device, host: device.info, isNull: false }]);
    expect(cases.filter(({ ok }) => !ok)).toEqual([]);
  });

  test('values that are no numbers, zeros of both signs, ties: in order, in every variant', async () => {
    const router = routingFunction({ numExperts: 36, topK: 8, scoring: 'topk-softmax' });
    const special = [NaN, Infinity, -Infinity, 0, -0, 1e-45, -1e-45, 3.4e38, 1, 1, -1, 0.5];
    const rows = special.map((_, shift) =>
      Float32Array.from({ length: 36 }, (__, id) => special[(id * (shift + 1) + shift) % special.length]!),
    );
    // NaN of either sign and any payload, among −∞: all one value.
    const lowest = new Float32Array(Uint32Array.of(0x7fc00000, 0xffc00001, 0x7f800001, 0xff800000, 0xffffffff).buffer);
    rows.push(Float32Array.from({ length: 36 }, (_, id) => (id === 20 ? 1 : lowest[(id * 3) % lowest.length]!)));
    const logits = Float32Array.from(rows.flatMap((row) => [...row]));
    const expected = rows.map((row) => routeRow(router, row, null));
    for (const variant of routerVariants(router, device.info, 64)) {
      const { ids, weights } = await runRouter(device, router, variant, logits, null);
      expectSame(
        ids,
        expected.flatMap((row) => row.ids),
        `${variant.algorithm}: ids`,
      );
      for (const [i, weight] of expected.flatMap((row) => row.weights).entries()) {
        expect(Math.abs(weights[i]! - weight)).toBeLessThan(1e-6);
      }
    }
  });

  test.each([
    ['no groups', null],
    ['groups by their best', { count: 4, keep: 2, score: 'max' }],
    ['groups by the sum of two', { count: 4, keep: 3, score: 'top2-sum' }],
  ] as const)('choices that a key cannot tell apart, and long runs of them: %s', async (_, groups) => {
    // K and groups fit the smallest subgroup that there is, so that every variant takes its own way.
    const router = routingFunction({ numExperts: 48, topK: 4, groups, scoring: 'sigmoid' });
    const random = randomNumbers(7);
    const nearOne = new Float32Array(1);
    const bits = new Uint32Array(nearOne.buffer);
    const logits = Float32Array.from({ length: 64 * 48 }, (__, i) => {
      if (groups?.score === 'top2-sum') return (((i * 29) % 48) - 24) / 4;
      nearOne[0] = 1.5;
      bits[0]! += random(i < 32 * 48 ? 40 : 4000);
      return nearOne[0];
    });
    const expected = Array.from({ length: 64 }, (__, row) =>
      routeRow(router, logits.subarray(row * 48, row * 48 + 48), null),
    );
    for (const variant of routerVariants(router, device.info, 64)) {
      const { ids } = await runRouter(device, router, variant, logits, null);
      expectSame(
        ids,
        expected.flatMap((row) => row.ids),
        `${variant.algorithm}: ids`,
      );
    }
  });

  test('more of the best in one lane than its list holds, and the next one as near as can be', async () => {
    const router = routingFunction({ numExperts: 128, topK: 8, renormalize: true });
    const logits = new Float32Array(128);
    // Quads 0, 8 and 16: one lane of 4 and of 8. Expert 64 is one bit above expert 35, whose key comes first.
    for (const [place, id] of [0, 1, 2, 3, 32, 33, 34].entries()) logits[id] = 10 - place;
    logits[35] = 1.5 + 2 ** -23;
    logits[64] = 1.5 + 2 ** -22;
    for (const variant of routerVariants(router, device.info, 64)) {
      const { ids } = await runRouter(device, router, variant, logits, null);
      expectSame(ids, [0, 1, 2, 3, 32, 33, 34, 64], `${variant.algorithm}: ids`);
    }
  });

  test.each([
    ['far apart', (id: number) => ((id * 7) % 23) * 4 - 40],
    ['all far from zero', (id: number) => 1000 + ((id * 7) % 16) / 16],
    ['but for one near each other', (id: number) => (id === 5 ? 1e29 : ((id * 7) % 16) / 64)],
    ['but for one near each other, and that one low', (id: number) => (id === 5 ? -1e29 : ((id * 7) % 16) / 64)],
  ] as const)('selection biases that lie %s', async (_, biasOf) => {
    const bias = Float32Array.from({ length: 48 }, (__, id) => biasOf(id));
    const random = randomNumbers(11);
    const logits = Float32Array.from({ length: 32 * 48 }, () => random(4096) / 512 - 4);
    for (let id = 0; id < 48; id += 2) logits[48 + id] = [NaN, Infinity, -Infinity][id % 3]!;
    logits.fill(NaN, 96, 144);
    logits.fill(0, 144, 192);
    for (const groups of [null, { count: 4, keep: 2, score: 'top2-sum' } as const]) {
      const router = routingFunction({ numExperts: 48, topK: 4, groups, scoring: 'sigmoid', hasSelectionBias: true });
      for (const variant of routerVariants(router, device.info, 32)) {
        const { ids } = await runRouter(device, router, variant, logits, bias);
        for (let row = 0; row < 32; row++) {
          const expected = routeRow(router, logits.subarray(row * 48, row * 48 + 48), bias);
          if (groups !== null && isGroupTie(expected.groupScores, groups.keep, true)) continue;
          const wrong = countWrongIds(ids.subarray(row * 4, row * 4 + 4), expected, true);
          expect(wrong, `${variant.algorithm}, row ${row}`).toBe(0);
        }
      }
    }
  });

  test('a group is ranked by two biases of which one is far below the greatest', async () => {
    const groups = { count: 4, keep: 2, score: 'top2-sum' } as const;
    const router = routingFunction({ numExperts: 48, topK: 2, groups, scoring: 'sigmoid', hasSelectionBias: true });
    // Sums −10, −8, −4 and −60. Were all under −6 taken for −6, the first group would come before the second.
    const best = new Map([
      [0, 0],
      [1, -10],
      [12, -1],
      [13, -7],
      [24, -2],
      [25, -2.5],
    ]);
    const bias = Float32Array.from({ length: 48 }, (_, id) => best.get(id) ?? -30);
    for (const variant of routerVariants(router, device.info, 1)) {
      const { ids } = await runRouter(device, router, variant, new Float32Array(48), bias);
      expectSame(ids, [12, 24], `${variant.algorithm}: ids`);
    }
  });

  test.each([-100, -1, 3, 100, 1e30])('a wrong base of keys in fixed point, %f', async (base) => {
    const groups = { count: 4, keep: 2, score: 'top2-sum' } as const;
    const router = routingFunction({ numExperts: 48, topK: 4, groups, scoring: 'sigmoid', hasSelectionBias: true });
    const bias = Float32Array.from({ length: 48 }, (_, id) => ((id * 7) % 16) / 8 + Math.floor(id / 12));
    const logits = Float32Array.from({ length: 48 }, (_, id) => ((id * 11) % 48) / 12 - 2);
    const params = Uint32Array.of(1, 0);
    new Float32Array(params.buffer)[1] = base;
    const expected = routeRow(router, logits, bias);
    for (const variant of routerVariants(router, device.info, 1)) {
      const { ids } = await runRouter(device, router, variant, logits, bias, params);
      expect(countWrongIds(ids, expected, true), variant.algorithm).toBe(0);
    }
  });

  test.each(FUZZ_SEEDS)('fuzz, seed %i (routed-experts kernels fuzz --cases 1 --seed …)', async (seed) => {
    expect(await fuzzRouter(device, device.info, seed)).toEqual([]);
  });
});

test('sizes that do not fit are refused', async () => {
  const device = await DEVICES[0]!.open();
  const router = routingFunction({ numExperts: 8, topK: 2 });
  const [variant] = routerVariants(router, device.info, 64);
  await expect(runRouter(device, router, variant!, new Float32Array(12), null)).rejects.toThrow(/rows of 8/);
  await expect(runRouter(device, router, variant!, new Float32Array(0), null)).rejects.toThrow(/one at least/);
  await expect(runRouter(device, router, variant!, new Float32Array(8), new Float32Array(8))).rejects.toThrow(/bias/);
  await device.destroy();
});
