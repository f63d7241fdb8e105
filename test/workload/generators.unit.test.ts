/**
 * A generator is a pure function of its options: equal options give equal bytes (L10), and each workload is what its
 * name claims.
 */

import { describe, expect, test } from 'vitest';
import { chat } from '../../src/workload/chat.ts';
import { rollout } from '../../src/workload/rollout.ts';
import { workloadTotals } from '../../src/workload/workload.ts';
import type { Workload } from '../../src/workload/workload.ts';
import { findWorkload, workloadNames, workloads } from '../../src/workload/workloads.ts';
import { commonPrefix, fingerprint, userError } from './helpers.ts';

const VOCAB_SIZE = 1000;
const names = workloadNames.map((name) => ({ name }));

/**
 * Prompt tokens that differ from every earlier prompt's prefix, and output tokens: what is computed with a perfect
 * prefix cache.
 */
function tokensComputed(workload: Workload): number {
  const seen: Uint32Array[] = [];
  let computed = workloadTotals(workload).outputTokens;
  for (const { promptTokenIds } of workload.requests) {
    computed += promptTokenIds.length - Math.max(0, ...seen.map((earlier) => commonPrefix(earlier, promptTokenIds)));
    seen.push(promptTokenIds);
  }
  return computed;
}

describe.each(names)('$name', ({ name }) => {
  const { generate } = workloads[name];

  test('the same seed gives the same bytes, another seed others', () => {
    const bytes = fingerprint(generate({ seed: 1, vocabSize: VOCAB_SIZE }));
    expect(fingerprint(generate({ seed: 1, vocabSize: VOCAB_SIZE }))).toBe(bytes);
    expect(fingerprint(generate({ seed: 2, vocabSize: VOCAB_SIZE }))).not.toBe(bytes);
  });

  test('absent options and their defaults are the same', () => {
    const absent = { requests: undefined, lengthScale: undefined, maxNumBatchedTokens: undefined };
    expect(fingerprint(generate({ seed: 1, vocabSize: VOCAB_SIZE, ...absent }))).toBe(
      fingerprint(generate({ seed: 1, vocabSize: VOCAB_SIZE, lengthScale: 1, maxNumBatchedTokens: 2048 })),
    );
  });

  test.each([2, 37, 201_088, 0xffff_ffff])('tokens stay below a vocabulary of %i, ids are unique', (vocabSize) => {
    const { requests } = generate({ seed: 3, vocabSize });
    expect(new Set(requests.map((request) => request.requestId)).size).toBe(requests.length);
    for (const { promptTokenIds, maxTokens } of requests) {
      expect(promptTokenIds.length).toBeGreaterThanOrEqual(1);
      expect(promptTokenIds.every((token) => token < vocabSize)).toBe(true);
      expect(Number.isInteger(maxTokens) && maxTokens >= 1).toBe(true);
    }
  });

  test('requests and lengthScale do what they say; lengths stay at least 1', () => {
    const base = { seed: 1, vocabSize: VOCAB_SIZE, requests: 40 };
    const small = workloadTotals(generate(base));
    const large = workloadTotals(generate({ ...base, lengthScale: 8 }));
    expect(small.numRequests).toBe(40);
    expect(large.promptTokens / small.promptTokens).toBeCloseTo(8, 0);
    expect(large.outputTokens / small.outputTokens).toBeGreaterThan(6);
    for (const request of generate({ ...base, lengthScale: 1e-9 }).requests) {
      expect(request.promptTokenIds.length).toBeGreaterThanOrEqual(1);
      expect(request.maxTokens).toBeGreaterThanOrEqual(1);
    }
  });

  test.each([
    [{ requests: 0 }, 'requests is 0; give a whole number from 1 to 1000000'],
    [{ requests: -3 }, 'requests is -3; give a whole number from 1 to 1000000'],
    [{ requests: 2.5 }, 'requests is 2.5; give a whole number from 1 to 1000000'],
    [{ requests: 1e9 }, 'requests is 1000000000; give a whole number from 1 to 1000000'],
    [{ lengthScale: 0 }, 'lengthScale is 0; give a finite number > 0'],
    [{ lengthScale: Number.NaN }, 'lengthScale is NaN; give a finite number > 0'],
    [{ lengthScale: Infinity }, 'lengthScale is Infinity; give a finite number > 0'],
    [{ seed: -1 }, 'seed is -1; give a whole number ≥ 0'],
    [{ vocabSize: 1 }, 'vocabSize is 1; give a whole number from 2 to 4294967295'],
    [{ vocabSize: 2 ** 32 }, 'vocabSize is 4294967296; give a whole number from 2 to 4294967295'],
  ])('%o is refused by name', (options, message) => {
    expect(userError(() => generate({ seed: 1, vocabSize: VOCAB_SIZE, ...options }))).toBe(`BAD_VALUE ${message}`);
  });

  test('what would not fit in memory is refused before it is made', () => {
    expect(userError(() => generate({ seed: 1, vocabSize: VOCAB_SIZE, lengthScale: 1e8 }))).toMatch(
      /^BAD_VALUE lengthScale is 100000000; give fewer requests or a smaller scale/u,
    );
  });

  test('at its defaults a machine without a GPU serves it in seconds: 1,500 to 4,100 computed tokens', () => {
    for (let seed = 0; seed < 50; seed++) {
      const computed = tokensComputed(generate({ seed, vocabSize: 201_088 }));
      expect(computed, `seed ${seed}`).toBeGreaterThan(1500);
      expect(computed, `seed ${seed}`).toBeLessThan(4100);
    }
  });
});

describe('chat', () => {
  test('every prompt opens with one of three system prompts, and later turns repeat the turn before', () => {
    const prompts = chat({ seed: 4, vocabSize: 201_088, requests: 60 }).requests.map(
      (request) => request.promptTokenIds,
    );
    expect(new Set(prompts.map((prompt) => prompt.subarray(0, 32).join())).size).toBe(3);
    expect(new Set(prompts.map((prompt) => prompt.subarray(1, 32).join())).size).toBe(3);
    const numLaterTurns = prompts.filter((prompt, number) =>
      prompts.slice(0, number).some((earlier) => commonPrefix(earlier, prompt) === earlier.length),
    ).length;
    expect(numLaterTurns).toBeGreaterThan(15);
    expect(numLaterTurns).toBeLessThan(45);
  });

  test('requests arrive one after the other', () => {
    const arrivalsMs = chat({ seed: 4, vocabSize: VOCAB_SIZE }).requests.map((request) => request.arrivalMs);
    expect(arrivalsMs[0]).toBe(0);
    expect(arrivalsMs.every((arrivalMs, number) => number === 0 || arrivalMs > arrivalsMs[number - 1]!)).toBe(true);
  });
});

describe('rollout', () => {
  test('eight samples share each prompt but for the last token; outputs are longer than prompts', () => {
    const workload = rollout({ seed: 4, vocabSize: 201_088, requests: 20 });
    const prompts = workload.requests.map((request) => request.promptTokenIds);
    for (let number = 0; number < 20; number++) {
      const first = prompts[number - (number % 8)]!;
      const shared = number % 8 === 0 ? first.length : first.length - 1;
      expect(commonPrefix(first, prompts[number]!), `request ${number}`).toBe(shared);
    }
    expect(commonPrefix(prompts[0]!, prompts[8]!)).toBe(0);
    const { promptTokens, outputTokens } = workloadTotals(workload);
    expect(outputTokens).toBeGreaterThan(promptTokens);
  });
});

describe('fixed', () => {
  test('prompts of one length, which no two share a token of; outputs of one length', () => {
    const { requests } = workloads.fixed.generate({ seed: 4, vocabSize: VOCAB_SIZE, requests: 20, promptTokens: 300 });
    expect(new Set(requests.map(({ promptTokenIds }) => promptTokenIds.length))).toEqual(new Set([300]));
    expect(new Set(requests.map(({ maxTokens }) => maxTokens)).size).toBe(1);
    for (const [i, { promptTokenIds }] of requests.entries()) {
      for (const other of requests.slice(i + 1)) expect(commonPrefix(promptTokenIds, other.promptTokenIds)).toBe(0);
    }
  });

  test('a prompt length of the caller’s own is not scaled', () => {
    const { requests } = workloads.fixed.generate({ seed: 4, vocabSize: 97, promptTokens: 30, lengthScale: 5 });
    expect(requests[0]!.promptTokenIds).toHaveLength(30);
    expect(userError(() => workloads.fixed.generate({ seed: 4, vocabSize: 97, promptTokens: 0 }))).toBe(
      'BAD_VALUE promptTokens is 0; give a whole number from 1 to 16777216',
    );
  });
});

test('an unknown name is refused with the names there are', () => {
  for (const name of ['chats', '', 'constructor']) {
    expect(userError(() => findWorkload(name))).toBe(
      `UNKNOWN_NAME unknown workload "${name}"; choose one of: chat, rollout, burst, fixed`,
    );
  }
  expect(findWorkload('burst')).toBe(workloads.burst);
});
