/** What is kept of an engine that has ended: its executor serves many engines, one after the other (L7). */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { EngineDriver } from '../../src/worker/engine-driver.ts';
import type { Executor } from '../../src/worker/executor.ts';
import { BASE_ENGINE } from '../capture/scenarios.ts';
import { FakeWorker } from '../engine/fake-worker.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const MOST_COLLECTIONS = 100;

/** Serves one request on `executor`, to the end. Returns the engine, weakly. */
async function serve(executor: Executor): Promise<WeakRef<EngineCore>> {
  const engine = new EngineCore(BASE_ENGINE, null);
  const driver = new EngineDriver({ engine, executor, queueDepth: 1, onOutput: () => driver.stop() });
  driver.add({
    requestId: 'a',
    promptTokenIds: Uint32Array.of(1, 2, 3),
    sampling: {
      maxTokens: 1,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: false,
      routedExpertsPromptStart: 0,
    },
    priority: 0,
    arrivalTime: 0,
    cacheSalt: null,
  });
  await driver.run();
  return new WeakRef(engine);
}

test('an executor whose loss never comes keeps no engine that has ended', async () => {
  const worker = new FakeWorker(BASE_ENGINE, () => 0);
  const executor = {
    lost: new Promise<never>(() => undefined),
    execute: (step) => Promise.resolve(worker.execute(step)),
    recycle: () => undefined,
    shutdown: () => Promise.resolve(),
  } as Partial<Executor> as Executor;
  const engines = [await serve(executor), await serve(executor)];
  // A reference that was read in a turn of the event loop holds until its end.
  for (let i = 0; i < MOST_COLLECTIONS && engines.some((engine) => engine.deref() !== undefined); i++) {
    await new Promise((resolve) => setImmediate(resolve));
    collectGarbage();
  }
  expect(engines.map((engine) => engine.deref())).toEqual([undefined, undefined]);
  // It is there all the time.
  expect(executor.lost).toBeInstanceOf(Promise);
});
