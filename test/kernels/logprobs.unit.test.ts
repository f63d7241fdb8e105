// Log-probabilities are made up, and consistent: finite, ≤ 0, no more than 1 together, of the prefix and its weights.

import { expect, test } from 'vitest';
import { SequenceLogprobs } from '../../src/kernels/model/logprobs.ts';
import { oracle, Oracle } from '../../src/kernels/model/oracle.ts';
import { Router } from '../../src/kernels/model/route/route.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';

const tiny = modelPreset('tiny');
const tokens = Array.from({ length: 40 }, (_, i) => (i * 29) % 97);

test('the next token is the likeliest, all fall with the rank, and sum to 1 at most', () => {
  const sequence = new SequenceLogprobs(tiny.vocabSize, () => 0);
  const { nextTokens } = oracle(tiny, tokens);
  expect(sequence.next()).toBe(null);
  for (const [i, token] of tokens.entries()) {
    sequence.push(token);
    const next = sequence.next()!;
    const top = next.top(1000);
    expect(top.length).toBe(tiny.vocabSize);
    expect(top[0]!.token).toBe(nextTokens[i]);
    expect(top.every(({ logprob }) => Number.isFinite(logprob) && logprob <= 0)).toBe(true);
    expect(top.every(({ logprob }, rank) => rank === 0 || logprob < top[rank - 1]!.logprob)).toBe(true);
    expect(top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0)).toBeLessThanOrEqual(1);
    for (const [rank, one] of top.entries())
      expect([next.of(one.token), next.rankOf(one.token)]).toEqual([one.logprob, rank]);
  }
});

test('the oracle has them; other weights, from any position on, have others', () => {
  const model = new Oracle(new Router(tiny));
  const same = new SequenceLogprobs(tiny.vocabSize, () => 3);
  const other = new SequenceLogprobs(tiny.vocabSize, (position) => (position < 20 ? 3 : 4));
  for (const [position, token] of tokens.entries()) {
    model.push(token, 3);
    same.push(token);
    other.push(token);
    const expected = model.logprobs().of(5);
    expect(same.next()!.of(5)).toBe(expected);
    expect(other.next()!.of(5) === expected).toBe(position < 20);
  }
});
