/**
 * The batch queue: as many steps in flight as there may be, outputs in the order of their steps, and one way through a
 * loss. `EngineDriver` and the storm drive it; the storm breaks it too, but for what its faults do not draw.
 */

import { beforeEach, describe, expect, test } from 'vitest';
import type { EngineCoreOutput } from '../../src/contract/engine-core-output.ts';
import { RoutedExpertsError } from '../../src/contract/errors.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import { BatchQueue, type BatchedEngine } from '../../src/worker/pipeline/batch-queue.ts';

const LOSS = RoutedExpertsError.of('WORKER_LOST', 0, 'a test');
const LAST_OUTPUT = { requestId: 'r', finishReason: 'error' } as EngineCoreOutput;

/** Runs steps 0, 1, 2, … for as long as a request is alive, and notes what it is told. */
class Engine implements BatchedEngine<number> {
  requestIds: readonly string[] = ['r'];
  isIdle = false;
  readonly told: string[] = [];
  #nextStep = 0;

  beginStep(): number | null {
    return this.requestIds.length === 0 ? null : this.#nextStep++;
  }

  finishStep({ stepId }: ModelRunnerOutput): readonly EngineCoreOutput[] {
    this.told.push(`output of ${stepId}`);
    return [];
  }

  onWorkersLost(): void {
    this.told.push('workers lost');
  }

  failAll(): readonly EngineCoreOutput[] {
    this.told.push('fail all');
    this.end();
    return [LAST_OUTPUT];
  }

  end(): void {
    this.requestIds = [];
    this.isIdle = true;
  }
}

let engine: Engine;
let queue: BatchQueue<number>;

function fresh(maxRestarts: number, queueDepth: number = 2): void {
  engine = new Engine();
  queue = new BatchQueue({ engine, queueDepth, maxRestarts });
}

function arrive(stepId: number): void {
  queue.arrived(stepId, { stepId } as ModelRunnerOutput);
}

beforeEach(() => fresh(1));

test.each([1, 2, 3])('with a depth of %d, that many steps are in flight', (queueDepth) => {
  fresh(0, queueDepth);
  for (let step = 0; step < queueDepth; step++) expect(queue.begin()).toBe(step);
  expect([queue.canBegin, queue.begin()]).toEqual([false, null]);
  arrive(0);
  expect(queue.begin()).toBeNull();
  expect(queue.finish()).toMatchObject({ step: 0, output: { stepId: 0 }, outputs: [] });
  expect(queue.begin()).toBe(queueDepth);
});

test('outputs are taken in in the order of their steps, in whatever order they arrive', () => {
  queue.begin();
  queue.begin();
  arrive(1);
  expect([queue.canFinish, queue.finish()]).toEqual([false, null]);
  arrive(0);
  expect([queue.finish()?.step, queue.finish()?.step, queue.finish()]).toEqual([0, 1, null]);
  expect(engine.told).toEqual(['output of 0', 'output of 1']);
});

test('a step that fails is met when its turn comes: the output of the step before it counts', () => {
  queue.begin();
  queue.begin();
  queue.notArrived(1, LOSS);
  expect([queue.canFinish, queue.state]).toEqual([false, 'running']);
  arrive(0);
  expect(queue.finish()?.step).toBe(0);
  expect(queue.finish()).toBeNull();
  expect([queue.state, engine.told]).toEqual(['lost', ['output of 0']]);
});

describe('after a loss', () => {
  beforeEach(() => {
    queue.begin();
    queue.begin();
    arrive(0);
    queue.lose(LOSS);
  });

  test('nothing begins and nothing is taken in until new workers run', () => {
    for (const next of [() => queue.workersGone(), () => queue.restarted()]) {
      expect([queue.canBegin, queue.begin(), queue.canFinish, queue.finish()]).toEqual([false, null, false, null]);
      next();
    }
    expect([queue.state, queue.begin()]).toEqual(['running', 2]);
  });

  test('the engine hears of it when new workers run, and not before', () => {
    expect(queue.workersGone()).toEqual([]);
    expect([queue.state, queue.loss, engine.told]).toEqual(['restarting', LOSS, []]);
    queue.restarted();
    expect(engine.told).toEqual(['workers lost']);
  });

  test('steps that were in flight are void, although they arrive', () => {
    queue.workersGone();
    queue.restarted();
    queue.begin();
    arrive(0);
    queue.notArrived(1, new Error('late'));
    expect([queue.canFinish, queue.state]).toEqual([false, 'running']);
  });

  test('a second loss before new workers run is the same one', () => {
    queue.lose(new Error('second'));
    queue.workersGone();
    queue.lose(new Error('third'));
    expect([queue.state, queue.loss]).toEqual(['restarting', LOSS]);
  });

  test('a stop waits for the requests that are to be computed again', () => {
    queue.stop();
    queue.workersGone();
    expect(queue.state).toBe('restarting');
    queue.restarted();
    expect(queue.state).toBe('running');
  });

  test('a stop without requests ends the queue: new workers would have nothing to do', () => {
    queue.stop();
    engine.end();
    expect(queue.workersGone()).toEqual([]);
    expect([queue.state, engine.told]).toEqual(['stopped', ['workers lost']]);
  });
});

function expectFailed(outputs: readonly EngineCoreOutput[], failure: unknown): void {
  expect(outputs).toEqual([LAST_OUTPUT]);
  expect([queue.state, queue.failure]).toEqual(['failed', failure]);
  expect(engine.told).toEqual(['fail all', 'workers lost']);
  expect([queue.canBegin, queue.begin(), queue.canFinish]).toEqual([false, null, false]);
}

describe('the queue fails, and every request with it,', () => {
  test.each([0, 2])('at the loss after the last of %d restarts', (maxRestarts) => {
    fresh(maxRestarts);
    for (let i = 0; i < maxRestarts; i++) {
      queue.lose(LOSS);
      queue.workersGone();
      queue.restarted();
    }
    engine.told.length = 0;
    queue.lose(LOSS);
    expectFailed(queue.workersGone(), LOSS);
  });

  test('when no start of new workers succeeds: each start counts as a restart', () => {
    fresh(2);
    queue.lose(LOSS);
    queue.workersGone();
    expect(queue.notRestarted(new Error('first'))).toEqual([]);
    expect([queue.state, queue.loss]).toEqual(['restarting', LOSS]);
    const second = new Error('second');
    expectFailed(queue.notRestarted(second), second);
  });

  test('at what new workers do not mend, although there are restarts', () => {
    const failure = RoutedExpertsError.of('RANKS_DIFFER', 1, 0, 'it sampled other tokens');
    queue.begin();
    queue.notArrived(0, failure);
    queue.finish();
    expectFailed(queue.workersGone(), failure);
  });
});

test('a stop ends the queue once the engine is idle and no step is in flight', () => {
  queue.begin();
  queue.stop();
  expect(queue.state).toBe('running');
  engine.end();
  expect(queue.state).toBe('running');
  arrive(0);
  queue.finish();
  expect(queue.state).toBe('stopped');
});

test('without a stop an idle engine is waited for', () => {
  engine.end();
  expect([queue.begin(), queue.state]).toEqual([null, 'running']);
});
