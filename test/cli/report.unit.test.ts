// What the table prints for a comparison.

import { expect, test } from 'vitest';
import type { RatioReport } from '../../src/cli/bench/report/cell-report.ts';
import { ratioText } from '../../src/cli/bench/report/metrics.ts';

const none = { min: 1, max: 1, low: null, high: null, halfWidth: null, verdict: null, pairs: 0, endedBy: null };

test.each<[Partial<RatioReport>, string]>([
  [{ median: 0.931, halfWidth: 0.01, verdict: 'slower' }, '0.93 ± 0.01 slower'],
  [{ median: 0.931, halfWidth: 0.0101, verdict: 'slower' }, '0.93 ± 0.02 slower'],
  [{ median: 0.9991, halfWidth: 0.0042, verdict: 'no difference seen' }, '0.999 ± 0.005 no difference seen'],
  [{ median: 0.9991, halfWidth: 0.0095, verdict: 'no difference seen' }, '1.00 ± 0.01 no difference seen'],
  [{ median: 1.2, halfWidth: 0.3, verdict: 'too noisy to say' }, '1.20 ± 0.30 too noisy to say'],
  [{ median: 1.2, verdict: 'too noisy to say' }, '1.20 too noisy to say'],
  [{ median: 1 }, '1'],
])('%j is printed as "%s"', (fields, text) => {
  expect(ratioText({ ...none, median: 1, ...fields })).toBe(text);
});
