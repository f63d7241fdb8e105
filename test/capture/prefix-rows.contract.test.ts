/**
 * Rows of prefix-cached tokens under `deltas`, for every policy, synchronous and with two and three steps in flight.
 * L9: each row is that of the KV which the request really attended to, whoever computed it. L1, L4: a row is there, or
 * is reported missing for a reason that the policy names. L5, L7: nothing is kept for nobody, and what is kept is
 * bounded. A request that does not ask costs the others no hit of a block with rows. On a failure: the options name the
 * run, which is the same each time.
 */

import { describe, expect, test } from 'vitest';
import { prefixRowsNames, prefixRowsPolicies } from '../../src/capture/deltas/prefix-rows.ts';
import { rowAt, toArray } from '../../src/capture/routed-rows.ts';
import type { PrefixRows } from '../../src/contract/config.ts';
import type { PrefixRun, PrefixRunOptions, PrefixRunRequest } from './prefix-run.ts';
import { BLOCK_SIZE, runPrefix } from './prefix-run.ts';

const BASE: Omit<PrefixRunOptions, 'policy' | 'depth' | 'seed'> = {
  optIn: 1,
  hasPromptStart: 0,
  numSpeculativeTokens: 0,
  abort: 0,
  resetCache: 0,
  isNondeterministic: true,
  numBlocks: 14,
  priorities: false,
  oneByOne: false,
};

const SCENARIOS: readonly (readonly [name: string, options: Partial<PrefixRunOptions>])[] = [
  ['all opted in, room for all', { numBlocks: 64 }],
  ['preemption', {}],
  ['mixed opt-in', { optIn: 0.6 }],
  ['priorities', { optIn: 0.8, priorities: true }],
  ['prompt start', { hasPromptStart: 0.6, optIn: 0.8 }],
  ['aborts and resets', { abort: 0.06, resetCache: 0.04, optIn: 0.8 }],
  ['speculative', { numSpeculativeTokens: 2, isNondeterministic: false, numBlocks: 16, abort: 0.02 }],
  [
    'everything',
    { optIn: 0.7, hasPromptStart: 0.3, abort: 0.04, resetCache: 0.03, numSpeculativeTokens: 2, numBlocks: 17 },
  ],
];

const SEEDS = 16;

/** The first thing about a request's rows that is not as the laws and the policy say, or `null`. */
function problemOf(run: PrefixRun, policy: PrefixRows, ran: PrefixRunRequest, index: number): string | null {
  const { request, rows, tokens } = ran;
  const { promptTokenIds, sampling } = request;
  const start = sampling.routedExpertsPromptStart;
  const numTokens = promptTokenIds.length + tokens.length;
  const attended = run.witness.attended.get(index) ?? [];
  for (const [i, token] of tokens.entries()) {
    const writes = attended[promptTokenIds.length + i - 1] ?? [];
    if (!writes.some((write) => write.nextToken === token)) return `token ${i} was sampled in no pass`;
  }
  if (!sampling.returnRoutedExperts) return rows === null ? null : 'rows that nobody asked for';
  if (rows === null) return 'no rows';
  if (rows.start !== start || rows.count !== numTokens - 1 - start) return `${rows.count} rows from ${rows.start} (L1)`;
  const now = toArray(rows, 0xff);
  if (now.some((expert, i) => expert !== ran.delivered![i])) return 'rows changed after they were delivered';
  for (let position = start; position < numTokens - 1; position++) {
    const row = rowAt(rows, position);
    const writes = attended[position] ?? [];
    if (row === null) {
      const isMissing = rows.missing.some(([from, to]) => position >= from && position < to);
      if (!isMissing) return `row ${position} is neither there nor missing (L4)`;
      if (!mayMiss(run, policy, ran, index, position)) return `row ${position} of ${rows.count} is missing`;
      continue;
    }
    const token =
      position < promptTokenIds.length ? promptTokenIds[position] : tokens[position - promptTokenIds.length];
    // A request that ran to its end holds the KV that it attended to last; of an aborted one any pass will do.
    const isLast = ran.finish !== 'abort' && (policy === 'complete' || policy === 'recompute');
    const isOf = (isLast ? writes.slice(-1) : writes).filter((write) => write.token === token);
    if (!isOf.some((write) => write.row.every((expert, i) => expert === row[i]))) {
      return `row ${position} is of no KV that the request attended to (L9)`;
    }
  }
  return null;
}

function mayMiss(run: PrefixRun, policy: PrefixRows, ran: PrefixRunRequest, index: number, position: number): boolean {
  if (ran.finish === 'abort' && position >= ran.arrivedEnd) return true;
  if (policy === 'complete' || policy === 'recompute') return false;
  // Aborted before it computed again what it lost: what it knows is of an earlier admission.
  if (ran.finish === 'abort' && position < ran.mostHits) return true;
  if (position >= ran.lastHits) return false;
  if (policy === 'computed-only') return true;
  // A hit: its rows are missing exactly if the request that computed the block did not ask for them.
  const producer = run.witness.attended.get(index)![position]!.at(-1)!.producer;
  const { returnRoutedExperts, routedExpertsPromptStart } = run.requests[producer]!.request.sampling;
  return !returnRoutedExperts || position < routedExpertsPromptStart;
}

function check(options: PrefixRunOptions, run: PrefixRun): void {
  const name = JSON.stringify(options);
  for (const [index, ran] of run.requests.entries()) {
    const problem = problemOf(run, options.policy, ran, index);
    if (problem !== null) expect.fail(`request ${index} (${ran.finish}): ${problem}; ${name}`);
  }
  expect(run.witness.numWrongRows, name).toBe(0);
  expect(run.brokenBound, name).toBe(null);
  const { requests, bytes, cachedBytes } = run.left;
  expect({ requests, bytes }, name).toEqual({ requests: 0, bytes: 0 });
  if (options.policy !== 'complete' && options.policy !== 'share') expect(cachedBytes ?? 0, name).toBe(0);
  if (!mayRecompute(options.policy, options)) expect(run.stats.numPrefixRefusedTokens, name).toBe(0);
}

/** With everybody opted in from the start, and from position 0, every cached block has its rows. */
function mayRecompute(policy: PrefixRows, { optIn, hasPromptStart }: Partial<PrefixRunOptions>): boolean {
  return policy === 'recompute' || (policy === 'complete' && (optIn !== 1 || hasPromptStart !== 0));
}

describe.each(prefixRowsNames)('%s', (policy) => {
  describe.each([1, 2, 3])('%i steps in flight', (depth) => {
    test.each(SCENARIOS)('%s', async (_, scenario) => {
      const total = { preemptions: 0, hits: 0, aborts: 0, resets: 0, rowsShared: 0 };
      let numRecomputed = 0;
      for (let seed = 0; seed < SEEDS; seed++) {
        const options = { ...BASE, ...scenario, policy, depth, seed };
        const run = await runPrefix(options);
        check(options, run);
        numRecomputed += run.stats.numPrefixRefusedTokens;
        for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += run.happened[key];
      }
      // Without these the scenario has missed its point.
      expect(total.preemptions > 0).toBe(scenario.numBlocks !== 64);
      expect(total.hits > 0).toBe(policy !== 'recompute' || 'optIn' in scenario || 'hasPromptStart' in scenario);
      expect(total.aborts > 0).toBe((scenario.abort ?? 0) > 0);
      expect(total.resets > 0).toBe((scenario.resetCache ?? 0) > 0);
      expect(numRecomputed > 0).toBe(mayRecompute(policy, { ...BASE, ...scenario }));
      expect(total.rowsShared > 0).toBe(policy === 'complete' || policy === 'share');
    });
  });
});

/** Of how many blocks the tokens of `ran` begin as those that an earlier request left in the cache do. */
function sharedBlocks(ran: PrefixRunRequest, earlier: readonly PrefixRunRequest[]): number {
  const prompt = ran.request.promptTokenIds;
  const shared = earlier.map(({ request, tokens }) => {
    const cached = [...request.promptTokenIds, ...tokens].slice(0, -1);
    const differs = prompt.findIndex((token, i) => token !== cached[i]);
    return Math.floor((differs < 0 ? prompt.length - 1 : Math.min(differs, prompt.length - 1)) / BLOCK_SIZE);
  });
  return Math.max(0, ...shared);
}

describe.each(prefixRowsNames)('%s, requests one by one, room for all', (policy) => {
  const { keeps, recomputes } = prefixRowsPolicies[policy];
  test.each([0, 0.1, 0.5, 1])(
    'opt-in %f: hits as with nobody opted in, but for blocks whose rows nobody has',
    async (optIn) => {
      let numHit = 0;
      for (let seed = 0; seed < SEEDS; seed++) {
        const options = { ...BASE, policy, depth: 1, seed, optIn, numBlocks: 200, oneByOne: true };
        const run = await runPrefix(options);
        let numRefused = 0;
        for (const [index, ran] of run.requests.entries()) {
          const earlier = run.requests.slice(0, index);
          const found = sharedBlocks(ran, earlier);
          const wants = ran.request.sampling.returnRoutedExperts;
          const withRows = keeps ? earlier.filter(({ request }) => request.sampling.returnRoutedExperts) : [];
          const due = wants && recomputes ? sharedBlocks(ran, withRows) : found;
          expect(ran.lastHits, `request ${index}; ${JSON.stringify(options)}`).toBe(due * BLOCK_SIZE);
          numRefused += (found - due) * BLOCK_SIZE;
          numHit += due;
        }
        expect(run.stats.numPrefixRefusedTokens, JSON.stringify(options)).toBe(numRefused);
      }
      expect(numHit > 0).toBe(policy !== 'recompute' || optIn < 1);
    },
  );
});
