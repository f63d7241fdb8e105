/**
 * A driver that has nothing to run sleeps. Blocks that are given back and loads that end bring work without a step:
 * each wakes it (L8).
 */

import { expect, test } from 'vitest';
import type { EngineConfig } from '../../src/contract/config.ts';
import type { EngineCoreOutput } from '../../src/contract/engine-core-output.ts';
import type { ExternalKv, KvConnector, KvLoad } from '../../src/contract/kv-connector.ts';
import type { CaptureRequest, EngineRequest } from '../../src/contract/request.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { EngineDriver } from '../../src/worker/engine-driver.ts';
import type { Executor } from '../../src/worker/executor.ts';
import { FakeWorker } from '../engine/fake-worker.ts';

/** Four blocks of four tokens. */
const config: EngineConfig = {
  blockSize: 4,
  numBlocks: 5,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 16,
  maxModelLen: 16,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: false,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: true,
  watermark: 0,
  numSpeculativeTokens: 0,
};

/** Keeps the blocks of `kept`, and has the KV of `loaded` elsewhere. */
class Connector implements KvConnector {
  readonly keptIndices: number[] = [];
  readonly loads: KvLoad[] = [];

  externalKv({ requestId, numPromptTokens }: CaptureRequest): ExternalKv | null {
    return requestId === 'loaded' ? { numTokens: numPromptTokens, hasRows: false } : null;
  }

  startLoad(load: KvLoad): void {
    this.loads.push(load);
  }

  keepsBlocks({ requestId, index }: CaptureRequest): boolean {
    if (requestId === 'kept') this.keptIndices.push(index);
    return requestId === 'kept';
  }

  onWorkersLost(): void {}
}

function request(requestId: string, promptLength: number): EngineRequest {
  return {
    requestId,
    promptTokenIds: Uint32Array.from({ length: promptLength }, (_, i) => i),
    sampling: {
      maxTokens: 2,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: false,
      routedExpertsPromptStart: 0,
    },
    priority: 0,
    arrivalTime: 0,
    cacheSalt: null,
  };
}

/** A running driver over a worker that answers at once. */
function startDriver(): {
  driver: EngineDriver;
  engine: EngineCore;
  connector: Connector;
  /** Resolves with the request's finish reason. */
  ended: (requestId: string) => Promise<string>;
  running: Promise<void>;
} {
  const connector = new Connector();
  const engine = new EngineCore(config, null, { connector });
  const worker = new FakeWorker(config, () => 0);
  const executor = {
    lost: new Promise<never>(() => undefined),
    execute: (step) => Promise.resolve(worker.execute(step)),
    recycle: () => undefined,
    shutdown: () => Promise.resolve(),
  } as Partial<Executor> as Executor;
  const ends = new Map<string, PromiseWithResolvers<string>>();
  const endOf = (requestId: string): PromiseWithResolvers<string> => {
    if (!ends.has(requestId)) ends.set(requestId, Promise.withResolvers());
    return ends.get(requestId)!;
  };
  const onOutput = ({ requestId, finishReason }: EngineCoreOutput): void => {
    if (finishReason !== null) endOf(requestId).resolve(finishReason);
  };
  const driver = new EngineDriver({ engine, executor, queueDepth: 1, onOutput });
  return { driver, engine, connector, ended: (requestId) => endOf(requestId).promise, running: driver.run() };
}

/** Waits until the driver sleeps: its last step is over, and nothing that runs is left. */
async function asleep({ engine }: { engine: EngineCore }): Promise<void> {
  await expect.poll(() => engine.stats(), { interval: 1 }).toMatchObject({ numRunning: 0, numStepsInFlight: 0 });
  // One more turn: the driver looks for work once after each step.
  await new Promise((resolve) => setImmediate(resolve));
}

test('kept blocks that are given back: the request that waits for them runs', async () => {
  const driven = startDriver();
  const { driver, connector, engine, ended, running } = driven;
  driver.add(request('kept', 8));
  expect(await ended('kept')).toBe('length');
  driver.add(request('waits', 12));
  await asleep(driven);
  expect(engine.stats()).toMatchObject({ numWaiting: 1, numKeptBlocks: 3 });
  driver.releaseBlocks(connector.keptIndices[0]!);
  expect(await ended('waits')).toBe('length');
  driver.stop();
  await running;
});

test.each(['loaded', 'recompute'] as const)('a load that ends as "%s": its request runs', async (kind) => {
  const driven = startDriver();
  const { driver, connector, engine, ended, running } = driven;
  driver.add(request('loaded', 8));
  await expect.poll(() => connector.loads.length, { interval: 1 }).toBe(1);
  await asleep(driven);
  expect(engine.stats()).toMatchObject({ numWaitingForRemoteKvs: 1 });
  const { loadId } = connector.loads[0]!;
  driver.finishLoad(loadId, kind === 'loaded' ? { kind, rows: null } : { kind });
  expect(await ended('loaded')).toBe('length');
  driver.stop();
  await running;
});
