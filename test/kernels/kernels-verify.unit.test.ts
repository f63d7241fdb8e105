/** `kernels verify`: what it says of a right file, of a wrong one, and of one whose sizes are not as it claims. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { goldenFiles, verifyFiles } from '../../src/cli/kernels/verify.ts';
import { routeRow } from '../../src/kernels/router/reference/router-reference.ts';
import { routingFunction } from '../../src/kernels/router/routing-function.ts';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'golden-'));
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

const base64 = (values: Float32Array | Int32Array): string => Buffer.from(values.buffer).toString('base64');

/** Two rows of eight logits and their right answer, with some fields replaced. */
function write(name: string, changes: Record<string, unknown> = {}): void {
  const router = routingFunction({ numExperts: 8, topK: 2, renormalize: true });
  const logits = Float32Array.from({ length: 16 }, (_, i) => Math.sin(i));
  const rows = [0, 8].map((at) => routeRow(router, logits.subarray(at, at + 8), null));
  const golden = {
    name,
    experts: 8,
    topK: 2,
    tokens: 2,
    params: { scoring: 'softmax', renormalize: true },
    logits: base64(logits),
    ids: base64(Int32Array.from(rows.flatMap(({ ids }) => ids))),
    weights: base64(Float32Array.from(rows.flatMap(({ weights }) => weights))),
    ...changes,
  };
  writeFileSync(join(directory, `${name}.json`), JSON.stringify(golden));
}

test('a right answer passes', async () => {
  write('right');
  const { passed, failed, cases } = await verifyFiles(goldenFiles(directory), []);
  expect({ passed, failed }).toEqual({ passed: 1, failed: 0 });
  expect(cases[0]).toMatchObject({ name: 'right', variant: 'reference', rows: 2, wrongIds: 0, ok: true });
});

test('wrong ids, and wrong weights, are counted', async () => {
  write('ids', { ids: base64(Int32Array.of(0, 1, 0, 1)) });
  write('weights', { weights: base64(Float32Array.of(0.5, 0.5, 0.5, 0.5)) });
  const { failed, cases } = await verifyFiles(goldenFiles(directory), []);
  expect(failed).toBe(2);
  expect(cases[0]!.wrongIds).toBeGreaterThan(0);
  expect(cases[1]!.maxRelativeWeightError).toBeGreaterThan(1e-5);
});

test('weights that are no numbers fail', async () => {
  write('nan', { weights: base64(Float32Array.of(NaN, NaN, NaN, NaN)) });
  expect((await verifyFiles(goldenFiles(directory), [])).failed).toBe(1);
});

test.each([
  ['too few logits', { logits: base64(new Float32Array(15)) }, 'logits has 60 bytes; give 64'],
  ['too many ids', { ids: base64(new Int32Array(5)) }, 'ids has 20 bytes; give 16'],
  ['an id without an expert', { ids: base64(Int32Array.of(0, 1, 8, 0)) }, 'ids hold 8, of 8 experts'],
  ['more experts than an id has bits for', { experts: 4096 }, 'numExperts is 4096'],
  [
    'groups that do not divide',
    { params: { scoring: 'softmax', groups: 3, topkGroups: 1, groupScore: 'max' } },
    'divisor',
  ],
  ['no weights', { weights: undefined }, 'weights is undefined'],
  ['no tokens', { tokens: 0 }, 'tokens is 0'],
])('a file with %s is named and refused, the rest still runs', async (_, changes, problem) => {
  write('b-wrong', changes);
  write('a-right');
  const { passed, failed, cases } = await verifyFiles(goldenFiles(directory), []);
  expect({ passed, failed }).toEqual({ passed: 1, failed: 1 });
  expect(cases[1]).toMatchObject({ name: 'b-wrong.json', ok: false });
  expect(cases[1]!.problem).toContain('b-wrong.json');
  expect(cases[1]!.problem).toContain(problem);
});

test('what is no JSON is named, too', async () => {
  writeFileSync(join(directory, 'broken.json'), '{');
  const { cases } = await verifyFiles(goldenFiles(directory), []);
  expect(cases[0]!.problem).toContain('broken.json');
});

test('a directory without answers is bad usage', () => {
  expect(() => goldenFiles(directory)).toThrow(/holds no \*\.json/);
  expect(() => goldenFiles(join(directory, 'absent'))).toThrow(/give a directory/);
});
