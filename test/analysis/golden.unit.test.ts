// Metrics, placements and maps are those that were recorded, where the recordings are there; and the comparison with
// them fails where an answer differs.

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { verifyFile } from '../../src/cli/inspect/verify/verify.ts';
import { F32, F64, differences } from '../../src/cli/inspect/verify/differences.ts';

const folder = fileURLToPath(new URL('../../../shared/golden/load-balance', import.meta.url));

const hasAnswers = existsSync(folder);
if (!hasAnswers) console.warn(`SKIPPED: recorded answers of load and placement; none at ${folder}`);

/** Each kind once: the others take longer, and `inspect verify` runs them all. */
const FILES = [
  'collapse',
  'drift',
  'shared-prefix',
  'sticky',
  'granite',
  'eplb',
  'eplb-float32',
  'eplb-vllm',
  'expert-maps',
  'routes-log-sample',
];

describe.skipIf(!hasAnswers)('recorded answers (../shared)', () => {
  test.each(FILES)('%s', (name) => {
    const { kind, differences: found } = verifyFile(`${folder}/${name}.json`);
    expect(found).toEqual([]);
    expect(kind).not.toBe('unreadable');
  });
});

test('every number, length and key that is recorded is compared', () => {
  const recorded = { a: [1, 2.5, null], b: { c: true }, d: [[3]] };
  const of = (answer: unknown): readonly string[] => differences(recorded, answer, () => F64);
  expect(of({ ...recorded, more: 1 })).toEqual([]);
  expect(of({ ...recorded, a: [1, 2.5 + 1e-12, null] })).toEqual([]);
  expect(of({ ...recorded, a: [1, 2.5 + 1e-6, null] })).toEqual(['a[1]: 2.5 recorded, 2.500001 found']);
  expect(of({ ...recorded, a: [1, 2.5, 0] })).toEqual(['a[2]: null recorded, 0 found']);
  expect(of({ ...recorded, a: [1, 2.5] })).toEqual(['a: 3 entries recorded, 2 found']);
  expect(of({ a: recorded.a, d: recorded.d })).toEqual(['b: {"c":true} recorded, nothing found']);
  expect(of({ ...recorded, d: [[4]] })).toHaveLength(1);
  expect(differences({ a: 2.5 }, { a: 2.50001 }, () => F32)).toEqual([]);
});

test('a file that is no recording is a failure, not a skipped one', () => {
  const found = verifyFile(fileURLToPath(new URL('../rows/row-files.json', import.meta.url)));
  expect(found).toMatchObject({ kind: 'unreadable', differences: [expect.stringMatching(/no file of recorded/)] });
});
