/** The steps between engine and workers: how many, in which order, and what becomes of a loss. Storms run the queue. */

import type { SourceMutation } from './source-mutation.ts';

const file = 'src/worker/pipeline/batch-queue.ts';
const storms = { command: ['fuzz', '--seeds', '5000'] };
const unitTest = { test: 'test/worker/batch-queue.unit.test.ts' };

export const batchQueueMutations: readonly SourceMutation[] = [
  {
    name: 'one-step-too-many',
    defect: 'one more step is in flight than there may be',
    file,
    find: 'this.#inFlight.length < this.#queueDepth',
    replace: 'this.#inFlight.length <= this.#queueDepth',
    killedBy: storms,
  },
  {
    name: 'begun-while-workers-are-gone',
    defect: 'steps begin while no worker runs',
    file,
    find: "this.#state === 'running' && this.#inFlight.length < ",
    replace: 'this.#inFlight.length < ',
    killedBy: storms,
  },
  {
    name: 'steps-outlive-their-workers',
    defect: 'steps that were in flight at a loss are awaited after the restart',
    file,
    find: `    this.#inFlight.length = 0;
    this.#failure = error;`,
    replace: '    this.#failure = error;',
    killedBy: storms,
  },
  {
    name: 'newest-output-first',
    defect: 'the output that has arrived is taken for that of the oldest step',
    file,
    find: 'if (inFlight !== undefined) inFlight.arrival = arrival;',
    replace: 'if (inFlight !== undefined) this.#inFlight[0]!.arrival = arrival;',
    killedBy: storms,
  },
  {
    name: 'restart-untold',
    defect: 'the engine does not hear that its workers are new',
    file,
    find: `    this.#state = 'running';
    this.#engine.onWorkersLost();`,
    replace: "    this.#state = 'running';",
    killedBy: storms,
  },
  {
    name: 'restarts-uncounted',
    defect: 'workers are started again for ever',
    file,
    find: 'this.#restartsLeft -= 1;',
    replace: '',
    killedBy: storms,
  },
  {
    name: 'final-loss-forgets-requests',
    defect: 'requests hang for ever when the workers are lost for good',
    file,
    find: 'const outputs = this.#engine.failAll();',
    replace: 'const outputs = NOTHING;',
    killedBy: storms,
  },
  {
    name: 'steps-kept-after-a-final-loss',
    defect: 'the engine does not hear of a final loss, and holds its steps in flight for ever',
    file,
    find: `    this.#engine.onWorkersLost();
    return outputs;`,
    replace: '    return outputs;',
    killedBy: storms,
  },
  {
    name: 'stop-unheard',
    defect: 'a drained engine does not end',
    file,
    find: 'this.#isStopping = true;',
    replace: '',
    killedBy: storms,
  },
  {
    name: 'failure-met-out-of-turn',
    defect: 'a step that fails voids the outputs of the steps before it',
    file,
    find: 'this.#note(step, { error });',
    replace: 'this.lose(error);',
    killedBy: unitTest,
  },
  {
    name: 'failed-start-uncounted',
    defect: 'a start of new workers that fails ends the engine, although there are restarts',
    file,
    find: `    this.#failure = error;
    return this.#restartOrFail();`,
    replace: `    this.#failure = error;
    return this.#fail();`,
    killedBy: unitTest,
  },
  {
    name: 'any-failure-restarts',
    defect: 'new workers are started for what they do not mend',
    file,
    find: 'if (!isLoss(this.#failure)) return this.#fail();\n    this.#loss = this.#failure;',
    replace: 'if (isLoss(this.#failure)) this.#loss = this.#failure;',
    killedBy: unitTest,
  },
];
