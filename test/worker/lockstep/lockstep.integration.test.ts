// Real threads in lockstep: all rows right, every rank runs every pass and waits for the slowest, and a rank that stands
// still ends the run with a report of the group, while the others go on listening.

import { expect, onTestFinished, test } from 'vitest';
import { serveWorkload, type ServeResult } from '../../../src/cli/bench/serve-workload.ts';
import { Verifier } from '../../../src/cli/bench/verify.ts';
import type { DesignName } from '../../../src/contract/config.ts';
import { DesignSession, type SessionConfig } from '../../../src/host/design-session.ts';
import { abandonedThreadsEnded, numAbandonedThreads } from '../../../src/worker/thread/abandoned-threads.ts';
import { workloads } from '../../../src/workload/workloads.ts';
import { smallEngine, tiny } from '../../serve/helpers.ts';

const NUM_RANKS = 3;
const workload = workloads.rollout.generate({ seed: 3, vocabSize: tiny.vocabSize, requests: 12, lengthScale: 0.3 });

async function start(design: DesignName, config: Partial<SessionConfig>): Promise<DesignSession> {
  const session = await DesignSession.start(design, {
    numRanks: NUM_RANKS,
    model: tiny,
    engine: smallEngine,
    device: 'cpu',
    adapter: null,
    queueDepth: 2,
    ballastMs: 0,
    fault: null,
    collectiveTimeoutMs: 60_000,
    ...config,
  });
  onTestFinished(() => session.close());
  return session;
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

test.each(['shm-flock', 'deltas'] as const)('%s: all rows right, and each rank has run each pass', async (design) => {
  const served = await serve(await start(design, {}));
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
  const release = new Int32Array(new SharedArrayBuffer(4));
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
  expect(message).toMatch(/\n {2}rank 1 \(tensor rank 1\): runs step [45], since /);
  await session.close();
  expect(numAbandonedThreads()).toBe(1);
  Atomics.store(release, 0, 1);
  Atomics.notify(release, 0);
  await abandonedThreadsEnded();
});
