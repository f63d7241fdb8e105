/**
 * What rows cost where nothing hides them: 64 requests of 4,096 tokens that finish in one step, without ballast, on the
 * machine's GPU. Runs of `deltas`, all opted in, beside runs of `off`. Rows are not verified, so a run of 0.1 s is
 * followed by the next at once, and by that time all code is compiled. Every other pair begins with garbage collected.
 */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { serveWorkload, type ServeResult } from '../src/cli/bench/serve-workload.ts';
import { DesignSession } from '../src/host/design-session.ts';
import { modelPreset } from '../src/kernels/model/model-presets.ts';
import { burst } from '../src/workload/burst.ts';

const REQUESTS = 64;
const BATCHED_TOKENS = 8192;
const BLOCK_SIZE = 16;
const TOTAL_TOKENS = 4096;
const WARM_UP_PAIRS = 10;
const PAIRS = 60;

const model = modelPreset('gpt-oss-120b');
const workload = burst({
  seed: 0,
  vocabSize: model.vocabSize,
  requests: REQUESTS,
  lengthScale: TOTAL_TOKENS / 256,
  maxNumBatchedTokens: BATCHED_TOKENS,
});

const config = {
  numRanks: 1,
  model,
  engine: {
    blockSize: BLOCK_SIZE,
    numBlocks: 1 + REQUESTS * (TOTAL_TOKENS / BLOCK_SIZE + 1),
    maxNumSeqs: REQUESTS,
    maxNumBatchedTokens: BATCHED_TOKENS,
    maxModelLen: TOTAL_TOKENS + BLOCK_SIZE,
    policy: 'fcfs',
    asyncScheduling: true,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: true,
    watermark: 0,
    numSpeculativeTokens: 0,
  },
  device: 'webgpu',
  adapter: null,
  queueDepth: 2,
  ballastMs: 0,
  fault: null,
  stepTimeoutMs: 0,
} as const;

type Run = Omit<ServeResult, 'requests'> & Readonly<{ prefillMs: number }>;

async function serve(session: DesignSession, optedIn: boolean): Promise<Run> {
  const { requests, ...result } = await serveWorkload({
    session,
    workload,
    optedIn: workload.requests.map(() => optedIn),
    mode: { kind: 'closed', concurrency: REQUESTS },
    abortAfter: workload.requests.map(() => null),
  });
  if (optedIn && requests.some(({ rows }) => rows === null)) throw new Error('a request has no rows');
  const prefillSteps = Math.ceil((REQUESTS * TOTAL_TOKENS) / BATCHED_TOKENS) - 2;
  return { ...result, prefillMs: result.stepMs.slice(0, prefillSteps).reduce((sum, ms) => sum + ms, 0) };
}

const median = (values: readonly number[]): string => [...values].sort((a, b) => a - b)[values.length >> 1]!.toFixed(2);

/** Prints medians over the pairs: ms of a run, of its prefill steps, of the engine, and of the longest stall. */
export async function run(): Promise<void> {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const off = await DesignSession.start('off', config);
  const deltas = await DesignSession.start('deltas', config);
  const pairs: { isCollected: boolean; off: Run; deltas: Run }[] = [];
  for (let i = -WARM_UP_PAIRS; i < PAIRS; i++) {
    const isCollected = i % 2 === 0;
    if (isCollected) collectGarbage();
    const without = await serve(off, false);
    if (isCollected) collectGarbage();
    const pair = { isCollected, off: without, deltas: await serve(deltas, true) };
    if (i >= 0) pairs.push(pair);
  }
  const columns: Readonly<Record<string, (served: Run) => number>> = {
    'wall ms': ({ wallMs }) => wallMs,
    'prefill ms': ({ prefillMs }) => prefillMs,
    'engine ms': ({ schedulerMs }) => schedulerMs,
    'longest engine step ms': ({ longestSchedulerMs }) => longestSchedulerMs,
    'stall ms': ({ eventLoopStallMs }) => eventLoopStallMs,
  };
  console.log(`${off.executor.devices[0]!.description}: ${PAIRS} pairs`);
  for (const isCollected of [false, true]) {
    const these = pairs.filter((pair) => pair.isCollected === isCollected);
    const ratio = median(these.map((pair) => pair.off.wallMs / pair.deltas.wallMs));
    console.log(`garbage ${isCollected ? 'collected before each run' : 'left'}: deltas at ${ratio} of off`);
    console.table(
      (['off', 'deltas'] as const).map((design) => ({
        design,
        ...Object.fromEntries(
          Object.entries(columns).map(([name, of]) => [name, median(these.map((pair) => of(pair[design])))]),
        ),
      })),
    );
  }
  await off.close();
  await deltas.close();
}

if (import.meta.main) await run();
