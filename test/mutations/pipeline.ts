/**
 * The worker's order of events: turns, ring slots, blocking reads, KV moves. Storms run the very state machine that
 * serves.
 */

import type { SourceMutation } from './source-mutation.ts';

const file = 'src/worker/pipeline/step-pipeline.ts';
const storms = { command: ['fuzz', '--seeds', '5000'] };
const twoEngines = { command: ['fuzz', '--pd', '--seeds', '5000'] };
const unitTest = { test: 'test/worker/step-pipeline.unit.test.ts' };

export const pipelineMutations: readonly SourceMutation[] = [
  {
    name: 'turn-passed-before-drafts-are-verified',
    defect: 'a step that depends on the drafts of the one before begins while that one runs',
    file,
    find: 'this.#reads !== null || engine.numSpeculativeTokens > 0;',
    replace: 'this.#reads !== null;',
    killedBy: storms,
  },
  {
    name: 'turn-never-passed-back',
    defect: 'a step that held the turn keeps it after its end',
    file,
    find: 'if (this.#turnHolder === task) this.#turnHolder = null;',
    replace: '',
    killedBy: storms,
  },
  {
    name: 'slot-of-an-empty-step-is-kept',
    defect: 'a step that runs no request keeps its ring slot',
    file,
    find: `      this.#ring.release(slot);
      this.#actions.onEnd(task, { kind: 'output', output: emptyOutput(step.stepId) });`,
    replace: `      this.#actions.onEnd(task, { kind: 'output', output: emptyOutput(step.stepId) });`,
    killedBy: storms,
  },
  {
    name: 'slot-kept-after-the-end',
    defect: 'a step keeps its ring slot after its end',
    file,
    find: 'if (slot !== null) this.#ring.release(slot);',
    replace: '',
    killedBy: storms,
  },
  {
    name: 'kv-read-out-of-turn',
    defect: 'a KV read begins before the steps that were accepted ahead of it',
    file,
    find: 'this.#queue.push(task);',
    replace: "if (task.kind === 'read-kv') this.#queue.unshift(task); else this.#queue.push(task);",
    killedBy: unitTest,
  },
  {
    name: 'kv-write-out-of-turn',
    defect: 'a KV write begins before the steps that were accepted ahead of it',
    file,
    find: 'this.#queue.push(task);',
    replace: "if (task.kind === 'write-kv') this.#queue.unshift(task); else this.#queue.push(task);",
    killedBy: twoEngines,
  },
  {
    name: 'kv-read-overtakes-a-write',
    defect: 'a KV read begins before the KV write that was accepted ahead of it',
    file,
    find: 'this.#queue.push(task);',
    replace: `const isBehindWrite = task.kind === 'read-kv' && this.#queue.at(-1)?.kind === 'write-kv';
    this.#queue.splice(isBehindWrite ? -1 : this.#queue.length, 0, task);`,
    killedBy: unitTest,
  },
  {
    name: 'kv-write-lost-on-half-the-blocks',
    defect: 'a KV write leaves the last block out',
    file,
    find: 'this.#kv.write(blockIds, keys);',
    replace: 'this.#kv.write(blockIds.subarray(0, -1), keys.subarray(0, keys.length - keys.length / blockIds.length));',
    killedBy: twoEngines,
  },
  {
    name: 'newest-step-first',
    defect: 'the step that was accepted last begins first',
    file,
    find: 'const task = this.#queue[0];',
    replace: 'this.#queue.unshift(...this.#queue.splice(-1)); const task = this.#queue[0];',
    killedBy: storms,
  },
  {
    name: 'blocking-read-ignores-its-offset',
    defect: 'a blocking read begins at the start of its buffer, whatever its range says',
    file,
    find: 'commands.copy(buffer, byteOffset ?? 0, staging, 0, byteLength)',
    replace: 'commands.copy(buffer, 0 * (byteOffset ?? 0), staging, 0, byteLength)',
    killedBy: unitTest,
  },
  {
    name: 'submitted-while-mapped',
    defect: 'a step goes on inside the map of its blocking read: its copy writes to a mapped buffer',
    file,
    find: 'this.#readyStep = { task, flight };',
    replace: 'this.#submit(task, flight);',
    killedBy: unitTest,
  },
  {
    name: 'slot-mapping-shared',
    defect: 'the steps in flight share one slot mapping: the next step writes it before the rows of this one are taken',
    file: 'src/worker/pipeline/step-frame.ts',
    find: 'return this.#idle.pop() ?? newFrame(this.#config);',
    replace: `const frame = this.#idle.pop() ?? newFrame(this.#config);
    frame.step.slotMapping = this.#slotMapping ??= frame.step.slotMapping;
    return frame;
  }

  #slotMapping: Uint32Array | undefined;

  nothing(): void {`,
    killedBy: { command: ['fuzz', '--design', 'slot-store', '--seeds', '300'] },
  },
];
