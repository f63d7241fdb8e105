// Real threads in lockstep: all rows right, every rank runs every pass and waits for the slowest, and a rank that
// stands still ends the run with a report of the group, while the others go on listening.

import { expect, onTestFinished, test } from 'vitest';
import { startEngines } from '../../../src/cli/bench/engines/start-engines.ts';
import { renderExperiments, reportExperiment } from '../../../src/cli/bench/experiments/experiments-report.ts';
import { runExperiments } from '../../../src/cli/bench/experiments/run-experiments.ts';
import { serveWorkload, type ServeResult } from '../../../src/cli/bench/serve-workload.ts';
import { Verifier } from '../../../src/cli/bench/verify.ts';
import type { DesignName } from '../../../src/contract/config.ts';
import { DesignSession, type SessionConfig } from '../../../src/host/design-session.ts';
import { abandonedThreadsEnded, numAbandonedThreads } from '../../../src/worker/thread/abandoned-threads.ts';
import { workloads } from '../../../src/workload/workloads.ts';
import { smallEngine, tiny } from '../../serve/helpers.ts';

const NUM_RANKS = 3;
const workload = workloads.rollout.generate({ seed: 3, vocabSize: tiny.vocabSize, requests: 12, lengthScale: 0.3 });

const sessionConfig: SessionConfig = {
  numRanks: NUM_RANKS,
  model: tiny,
  engine: smallEngine,
  device: 'cpu',
  adapter: null,
  queueDepth: 2,
  ballastMs: 0,
  fault: null,
  collectiveTimeoutMs: 60_000,
};

async function start(design: DesignName, config: Partial<SessionConfig>): Promise<DesignSession> {
  const session = await DesignSession.start(design, { ...sessionConfig, ...config });
  onTestFinished(() => session.close());
  return session;
}

/** A word that ends a hang; set at the end of the test in any case. */
function releaseWord(): Int32Array<SharedArrayBuffer> {
  const word = new Int32Array(new SharedArrayBuffer(4));
  onTestFinished(() => letGo(word));
  return word;
}

function letGo(word: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(word, 0, 1);
  Atomics.notify(word, 0);
}

function serve(session: DesignSession): Promise<ServeResult> {
  return serveWorkload({
    session,
    workload,
    optedIn: workload.requests.map(() => true),
    mode: { kind: 'closed', concurrency: 4 },
    abortAfter: workload.requests.map((_, i) => (i % 5 === 4 ? 3 : null)),
  });
}

test('all rows are right, and each rank has run each pass', async () => {
  const served = await serve(await start('shm-flock', {}));
  const verification = new Verifier(tiny).verify(served.requests);
  expect(verification).toMatchObject({ wrongTokens: 0, rowsMismatched: 0, requestsWithWrongCount: 0 });
  expect(verification.rowsVerified).toBeGreaterThan(50);
  const numPasses = served.stepMs.length;
  expect(served.ranks!.map(({ stepMs, waitMs }) => [stepMs.length, waitMs.length])).toEqual(
    Array.from({ length: NUM_RANKS }, () => [numPasses, numPasses]),
  );
  expect(served.ranks!.reduce((sum, { numLast }) => sum + numLast, 0)).toBe(numPasses);
});

test('a rank that stands still: the run ends with a report that names it, and nothing else is stuck', async () => {
  const release = releaseWord();
  const fault = { kind: 'hang', rank: 1, stepId: 5, release } as const;
  const session = await start('shm-flock', { fault, collectiveTimeoutMs: 300 });
  const failure = await serve(session).then(
    () => null,
    (error: unknown) => error,
  );
  expect(failure).toMatchObject({ code: 'COLLECTIVE_TIMEOUT' });
  const { message } = failure as Error;
  expect(message).toMatch(
    /longer than --collective-timeout 0.3 s: ranks 0, 2 wait at the barrier, since 0.\d s, for rank 1/,
  );
  expect(message).toMatch(/\n {2}rank 1 \(tensor rank 1\): (runs|stands still behind) step [45], /);
  await session.close();
  expect(numAbandonedThreads()).toBe(1);
  letGo(release);
  await abandonedThreadsEnded();
});

test('the five experiments: a row that stands still is a result, and the others come to their end', async () => {
  const config = { ...sessionConfig, numRanks: 2, collectiveTimeoutMs: 300 };
  const release = releaseWord();
  const result = await runExperiments(
    {
      designs: ['shm-flock'],
      optInShares: [1],
      ending: { kind: 'repeats', repeats: 1 },
      clockWarmUpMs: 0,
      checksShaders: false,
      seed: 1,
      workload,
      mode: { kind: 'closed', concurrency: 4 },
      abortShare: 0,
      dataParallel: { size: 1, dispatch: 'modular' },
      session: { ...config, fault: { kind: 'hang', rank: 1, stepId: 3, release } },
    },
    // The threads of a row are started again when it has stood still: all of them stand still at first.
    () => {},
  );
  letGo(release);
  await abandonedThreadsEnded();
  expect(result.problems).toEqual([]);
  const reports = result.experiments.map(reportExperiment);
  expect(reports.map(({ timeouts }) => timeouts.length)).toEqual([1, 1, 1, 1, 1]);
  expect(reports[4]!.timeouts[0]!.report).toContain('for rank 1');
  const { rows: on } = reports[1]!;
  expect(on.verified).toBeGreaterThan(50);
  expect(reports.map(({ rows }) => [rows.verified > 0, rows.missing > 0, rows.mismatched])).toEqual([
    [false, false, 0],
    [true, false, 0],
    [false, true, 0],
    [false, true, 0],
    [false, true, 0],
  ]);
  const text = renderExperiments(result).split('\n');
  expect(text.find((line) => line.startsWith('flag on '))).toMatch(/ at \d\.\d s +~20 s$/);
});

const layouts = ['naive-shards', 'modular-shards'] as const;

test.each(layouts)('engines of one group, %s: all rows right, also while one is idle', async (dispatch) => {
  const config = { ...sessionConfig, numRanks: 2, collectiveTimeoutMs: 5000 };
  const engines = await startEngines('shm-flock', config, { size: 2, dispatch });
  onTestFinished(() => engines.close());
  for (const numRequests of [workload.requests.length, 1]) {
    const requests = workload.requests.slice(0, numRequests);
    const served = await engines.serve({
      workload: { ...workload, requests },
      optedIn: requests.map(() => true),
      mode: { kind: 'closed', concurrency: 4 },
      abortAfter: requests.map(() => null),
    });
    expect(served.requests.map(({ requestId }) => requestId)).toEqual(requests.map(({ requestId }) => requestId));
    const verification = new Verifier(tiny).verify(served.requests);
    expect(verification).toMatchObject({ wrongTokens: 0, rowsMismatched: 0, requestsWithWrongCount: 0 });
    expect(verification.rowsVerified).toBeGreaterThan(numRequests);
    const numPasses = served.ranks!.map(({ stepMs }) => stepMs.length);
    expect(numPasses).toHaveLength(4);
    expect(new Set(numPasses).size).toBe(1);
    expect(served.engineStats).toMatchObject({ numUsedBlocks: 0, numRunning: 0 });
    expect(served.workerLiveCounts).toMatchObject({ batchEntries: 0, ringSlots: 0, lentBuffers: 0 });
  }
});
