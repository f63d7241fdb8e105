/** A cluster in virtual time: the laws hold in each engine, ranks meet as threads do, a group that stands says so. */

import { describe, expect, test } from 'vitest';
import { designNames } from '../../../src/capture/designs.ts';
import { clusterOptions, runCluster } from './small-cluster.ts';

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const FAULTS = ['slow-rank:3:2', 'dead-rank:2@100ms', 'slow-nic:1:400'];

describe('every law holds in every engine', () => {
  for (const design of [...designNames, 'deltas/share']) {
    test(`${design}, over seeds`, () => {
      for (const seed of [1, 2, 3]) {
        const { violation, counts } = runCluster({ design, seed });
        expect(violation, `seed ${seed}`).toBeNull();
        expect(counts.finished).toBeGreaterThan(5);
        expect(counts.finished + counts.aborted).toBe(counts.sent);
      }
    });
    test(`${design}, with each fault`, () => {
      const faults = design === 'shm-flock' ? [...FAULTS, 'held-lock:0@50ms+60ms'] : FAULTS;
      for (const fault of faults) {
        const { violation, counts } = runCluster({ design, faults: [fault] });
        expect(violation, fault).toBeNull();
        expect(counts.finished + counts.aborted + counts.failed, fault).toBe(counts.sent);
      }
    });
  }

  test('under each dispatch, whose rows of other engines and padding nobody is given (L3)', () => {
    for (const dispatch of ['modular', 'naive', 'naive-shards'] as const) {
      const { violation, counts } = runCluster({ ...served(20), dispatch, numEngines: 3, numNodes: 1 });
      expect(violation, dispatch).toBeNull();
      expect(counts).toMatchObject({ finished: 20, rowsDelivered: rowsOf(20), rowsMissing: 0 });
    }
  });

  test('a known defect of a design is found, and its engine named', () => {
    const { violation, brokenEngine } = runCluster({ design: 'mutant/scheduler-order', concurrency: 6, seed: 3 });
    expect(violation!.message).toMatch(/rows \[\d+, \d+\) arrived where/);
    expect(brokenEngine).toBe(1);
  });
});

test('the rows of 64 ranks are each their request’s own, and all there', () => {
  const shape = { ...served(64), numEngines: 8, tensorParallel: 8, numNodes: 8 };
  for (const design of designNames.filter((name) => name !== 'off')) {
    const { violation, counts, passes, nodes } = runCluster({ ...shape, design });
    expect(violation, design).toBeNull();
    // Of the tiny model a row is 4 ids, which shm-flock keeps in 4 bytes each.
    const bytes = design === 'shm-flock' ? 16 : 4;
    expect(sum(nodes.map(({ toClients }) => toClients))).toBe(bytes * counts.rowsDelivered);
    for (const { deviceToHost, hostToEngine } of nodes) expect(Math.min(deviceToHost, hostToEngine)).toBeGreaterThan(0);
    expect(counts, design).toMatchObject({ finished: 64, failed: 0 });
    expect(counts.rowsDelivered + counts.rowsMissing, design).toBe(rowsOf(64));
    // Tokens that a cached block spared are missing with it alone.
    if (design !== 'host-cache') expect(counts.rowsMissing, design).toBe(0);
    expect(passes).toHaveLength(64);
  }
});

describe('time', () => {
  test('every rank runs every pass, and one of them is the last to end it', () => {
    const { passes, numPasses } = runCluster({ tensorParallel: 4 });
    for (const { stepMs, waitMs } of passes) {
      expect(stepMs).toHaveLength(numPasses);
      expect(Math.min(...waitMs)).toBeGreaterThanOrEqual(0);
    }
    expect(sum(passes.map(({ numLast }) => numLast))).toBe(numPasses);
    // In each pass the last rank waits for nobody.
    for (let pass = 0; pass < numPasses; pass += 1) {
      expect(Math.min(...passes.map(({ waitMs }) => waitMs[pass]!))).toBe(0);
    }
  });

  test('ranks of which only the time is simulated take the time of ranks that run', () => {
    for (const design of ['deltas', 'shm-flock']) {
      const first = runCluster({ design, tensorParallel: 3 });
      const all = runCluster({ design, tensorParallel: 3, realRanks: 'all' });
      expect(all.violation).toBeNull();
      const times = ({ passes }: typeof all): unknown => passes.map(({ stepMs, waitMs }) => ({ stepMs, waitMs }));
      expect(times(all)).toEqual(times(first));
      expect(all.counts).toEqual(first.counts);
    }
  });

  test('an idle engine runs dummy passes for the others, and they end with nothing', () => {
    const idle = { numEngines: 3, numNodes: 1, concurrency: 1, gap: 40_000 };
    const { violation, counts, numPasses } = runCluster(idle);
    expect(violation).toBeNull();
    expect(counts.dummies).toBeGreaterThan(5);
    expect(counts.steps + counts.dummies).toBe(3 * numPasses);
  });

  test('a slow rank is the straggler of each pass, and all others are as slow', () => {
    const quick = runCluster();
    const { passes, numPasses, counts } = runCluster({ faults: ['slow-rank:3:2'] });
    expect(passes[3]!.numLast).toBe(numPasses);
    expect(counts.tokens / quick.counts.tokens).toBeLessThan(0.6);
  });

  test('a slow NIC makes the ranks of its node late, and within one node nothing goes over a NIC', () => {
    const { passes, numPasses } = runCluster({ faults: ['slow-nic:1:400'] });
    expect(passes[2]!.numLast + passes[3]!.numLast).toBe(numPasses);
    expect(sum(runCluster().nodes.map(({ exchange }) => exchange))).toBeGreaterThan(0);
    expect(runCluster({ numNodes: 1 }).nodes[0]!.exchange).toBe(0);
  });

  test('behind a warm-up alone tokens and passes are counted', () => {
    const all = runCluster();
    const { counts, passes, measured } = runCluster({ warmUp: 100_000 });
    expect(measured).toBe(100_000);
    expect(counts.tokens / all.counts.tokens).toBeLessThan(0.7);
    expect(passes[0]!.stepMs.length / all.passes[0]!.stepMs.length).toBeLessThan(0.7);
  });

  test('the same seed makes the same event log, and another seed another (L10)', () => {
    expect(runCluster().hash).toBe(runCluster().hash);
    expect(runCluster({ seed: 2 }).hash).not.toBe(runCluster().hash);
  });
});

describe('the lock of shm-flock', () => {
  const slow = { ...clusterOptions().costs, savePerRowUs: 300 };

  test('engines of a node that share it wait for each other', () => {
    const apart = runCluster({ design: 'shm-flock', numNodes: 1, costs: slow });
    const shared = runCluster({ design: 'shm-flock', numNodes: 1, costs: slow, lock: 'node' });
    expect(shared.violation).toBeNull();
    expect(shared.numPasses).toBeLessThan(apart.numPasses);
  });

  test('a save makes its rank late: the engine’s first one', () => {
    const costs = { ...slow, savePerRowUs: 1000 };
    const alone = runCluster({ design: 'shm-flock', costs, numEngines: 1, numNodes: 1, duration: 500_000 });
    expect(alone.passes[0]!.numLast / alone.numPasses).toBeGreaterThan(0.9);
    // Ranks of several engines meet before a pass, too: there it is missed.
    const { passes, numPasses } = runCluster({ design: 'shm-flock', costs, duration: 500_000 });
    expect((passes[0]!.numLate + passes[2]!.numLate) / numPasses).toBeGreaterThan(0.9);
  });

  test('held by another process for longer than the time-out it ends the run, and the report says so', () => {
    const { stall, violation, counts } = runCluster({ design: 'shm-flock', faults: ['held-lock:1@100ms+90s'] });
    expect(violation).toBeNull();
    expect(stall!.report).toMatch(
      /ranks 0, 1, 3 wait at the barrier, since 60\.0 s, for rank 2\n {2}rank 2 \(engine 1/,
    );
    expect(stall!.report).toContain('waits for the lock, since 60.0 s');
    expect(counts.finished + counts.aborted + counts.failed).toBe(counts.sent);
  });

  test('held for shorter it makes one pass long', () => {
    const { stall, passes } = runCluster({ design: 'shm-flock', faults: ['held-lock:1@100ms+50ms'] });
    expect(stall).toBeNull();
    expect(passes[0]!.stepMs.filter((ms) => ms > 40)).toHaveLength(1);
  });
});

describe('a dead rank', () => {
  test('is what all others wait for until the time-out, and then every request ends', () => {
    for (const rank of [0, 1]) {
      const { stall, violation, counts } = runCluster({ faults: [`dead-rank:${rank}@100ms`] });
      expect(violation).toBeNull();
      expect(stall!.at).toBeGreaterThan(60_100_000);
      expect(stall!.report).toContain(`wait at the barrier, since 60.0 s, for rank ${rank}\n  rank ${rank} (engine 0`);
      expect(counts.finished + counts.aborted + counts.failed).toBe(counts.sent);
    }
  });
});

test('requests that were served before are served again, each once, and end the run', () => {
  const before = served(7);
  const { violation, counts, measured } = runCluster(before);
  expect(violation).toBeNull();
  expect(counts).toMatchObject({ sent: 7, finished: 7, aborted: 0 });
  expect(counts.tokens).toBe(sum(before.served.requests.map(({ maxTokens }) => maxTokens)));
  expect(measured).toBeGreaterThan(0);
});

/** So many requests, two at a time in each engine; they share prefixes in pairs. */
function served(count: number) {
  const engine = {
    blockSize: 4,
    numBlocks: 64,
    maxNumSeqs: 2,
    maxNumBatchedTokens: 32,
    maxModelLen: 32,
    policy: 'fcfs',
    asyncScheduling: true,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: true,
    watermark: 0,
    numSpeculativeTokens: 0,
  } as const;
  const requests = Array.from({ length: count }, (_, i) => ({
    prompt: [7, 7, 7, i % 2, i, 5].map((token) => token % 97),
    maxTokens: 3 + (i % 7),
  }));
  return { served: { engine, requests }, concurrency: 2, duration: Number.MAX_SAFE_INTEGER };
}

/** Rows that are due to these requests (L1). */
function rowsOf(count: number): number {
  return sum(served(count).served.requests.map(({ prompt, maxTokens }) => prompt.length + maxTokens - 1));
}
