// Ranks that have a GPU each are started one after the other: what is selected holds for the whole process.

import { afterEach, expect, test, vi } from 'vitest';
import { ThreadExecutor, type ThreadExecutorConfig } from '../../src/worker/thread/thread-executor.ts';
import { newLockstep } from '../../src/worker/thread/shared-lockstep.ts';
import { RankThread } from '../../src/worker/thread/rank-thread.ts';
import { RankGrid } from '../../src/worker/pipeline/lockstep/rank-grid.ts';
import { smallEngine, tiny } from '../serve/helpers.ts';

const events: string[] = [];

afterEach(() => {
  vi.restoreAllMocks();
  events.length = 0;
});

async function start(config: Partial<ThreadExecutorConfig>): Promise<readonly string[]> {
  vi.spyOn(RankThread.prototype, 'start').mockImplementation(async () => {
    events.push('start');
    await Promise.resolve();
    events.push('started');
    return { kind: 'started', device: {} as never };
  });
  const all: ThreadExecutorConfig = {
    numRanks: 2,
    model: tiny,
    engine: smallEngine,
    design: 'off',
    device: 'cpu',
    adapter: null,
    queueDepth: 2,
    ballastMs: 0,
    sharedMemory: null,
    fault: null,
    ...config,
  };
  await ThreadExecutor.start(all, (address) => void events.push(`select ${address}`));
  return events;
}

test('each rank selects its GPU, and the next one waits until it has opened it', async () => {
  const expected = ['a', 'b', 'a'].flatMap((gpu) => [`select ${gpu}`, 'start', 'started']);
  expect(await start({ numRanks: 3, gpus: ['a', 'b'] })).toEqual(expected);
});

test('ranks are counted over all engines of the group', async () => {
  const grid = new RankGrid({ dataParallel: 3, pipelineParallel: 1, tensorParallel: 2 });
  const lockstep = { ...newLockstep(grid, { collectiveTimeoutMs: 1000 }), engine: 1 };
  const selected = (await start({ lockstep, gpus: ['a', 'b', 'c'] })).filter((event) => event.startsWith('select'));
  expect(selected).toEqual(['select c', 'select a']);
});

test('without GPUs to choose from all ranks start at once, and nothing is selected', async () => {
  expect(await start({})).toEqual(['start', 'start', 'started', 'started']);
});
