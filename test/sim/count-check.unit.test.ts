// The storm's accountant finds each thing that can be left over or out of balance: one wrong count at a time, on an
// engine that is otherwise clean.

import { expect, test } from 'vitest';
import type { CaptureLiveCounts } from '../../src/contract/capture.ts';
import { CountCheck, type Counted } from '../../src/sim/laws/count-check.ts';
import { drawScenario } from '../../src/sim/draw-scenario.ts';
import { Judge } from '../../src/sim/laws/judge.ts';

type Counts = { waiting: number; used: number; untold: number; capture: CaptureLiveCounts | null };

const CLEAN: Counts = { waiting: 0, used: 0, untold: 0, capture: { requests: 0, bytes: 0, cachedBytes: 0 } };

/** A world of which nothing is real but its counts. */
function checkOf({ waiting, used, untold, capture }: Counts): CountCheck {
  const engine = {
    checkIntegrity: () => {},
    resetPrefixCache: () => true,
    stats: () => ({
      numWaiting: waiting,
      numWaitingForRemoteKvs: 0,
      numRunning: 0,
      numUsedBlocks: used,
      numFreeBlocks: 0,
      capture,
    }),
  };
  const counted = {
    scenario: drawScenario(1),
    engine,
    half: capture === null ? null : { liveCounts: () => capture },
    plans: { numUntold: untold, checkBlocks: () => {} },
    requests: [],
    judge: new Judge([]),
  };
  return new CountCheck(counted as unknown as Counted);
}

test('a clean world passes, with a design and without', () => {
  for (const capture of [CLEAN.capture, null]) {
    const check = checkOf({ ...CLEAN, capture });
    check.check(0);
    check.checkDrained();
  }
});

const leftOver: [what: string, counts: Partial<Counts>, message: RegExp][] = [
  ['a block', { used: 1 }, /1 KV blocks are held after the drain/],
  ['an end that no worker heard of', { untold: 2 }, /2 ended requests were never told/],
  ['a request of the half', { capture: { requests: 1, bytes: 0 } }, /holds 1 requests, 0 bytes and 0 of cached blocks/],
  ['bytes of the half', { capture: { requests: 0, bytes: 8 } }, /holds 0 requests, 8 bytes/],
  ['rows of cached blocks', { capture: { requests: 0, bytes: 0, cachedBytes: 4 } }, /and 4 of cached blocks/],
];

test.each(leftOver)('left after the drain: %s', (_, counts, message) => {
  expect(() => checkOf({ ...CLEAN, ...counts }).checkDrained()).toThrow(message);
});

test('out of balance while it runs: requests, and what the half holds', () => {
  expect(() => checkOf({ ...CLEAN, waiting: 1 }).check(0)).toThrow(/1 requests wait and 0 run, but 0 are alive/);
  expect(() => checkOf({ ...CLEAN, capture: { requests: 1, bytes: 0 } }).check(0)).toThrow(
    /holds 1 requests, 0 are alive/,
  );
  const most = { requests: 0, bytes: Number.MAX_SAFE_INTEGER };
  expect(() => checkOf({ ...CLEAN, capture: most }).check(0)).toThrow(/live tokens account for \d+/);
});
