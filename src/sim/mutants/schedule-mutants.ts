/** Schedulers that get one rule wrong: methods of the code under test, patched for the time of a run. */

import type { EngineConfig } from '../../contract/config.ts';
import { KVCacheManager } from '../../engine/kv/kv-cache-manager.ts';
import { Request } from '../../engine/request.ts';
import { Scheduler } from '../../engine/scheduler.ts';
import type { Mutant } from './mutant.ts';

/** Blocks of a request that leaves the step being planned keep hashes of tokens that are never computed. */
function installKeptHashes(): () => void {
  const original = KVCacheManager.prototype.uncomputedBlocks;
  KVCacheManager.prototype.uncomputedBlocks = () => [];
  return () => {
    KVCacheManager.prototype.uncomputedBlocks = original;
  };
}

/** A second preemption forgets that output in flight must be thrown away. */
function installUndroppedOutput(): () => void {
  const original = Request.prototype.startOver;
  Request.prototype.startOver = function startOver(this: Request, dropStaleOutput) {
    original.call(this, dropStaleOutput);
    this.dropStaleOutput = dropStaleOutput;
  };
  return () => {
    Request.prototype.startOver = original;
  };
}

/** Plans are made for a model that is longer by the drafts of a step. */
function installLongerModel(): () => void {
  const original = Scheduler.prototype.schedule;
  Scheduler.prototype.schedule = function schedule(this: { config: EngineConfig } & Scheduler) {
    const { config } = this;
    this.config = { ...config, maxModelLen: config.maxModelLen + config.numSpeculativeTokens };
    try {
      return original.call(this);
    } finally {
      this.config = config;
    }
  };
  return () => {
    Scheduler.prototype.schedule = original;
  };
}

export const scheduleMutants: readonly Mutant[] = [
  {
    number: 21,
    name: 'uncomputed-hash-kept',
    defect: 'a request that leaves the step being planned keeps hashes on blocks that nobody computes',
    source: 'vLLM’s scheduler under policy `priority`',
    base: 'deltas',
    mutation: { install: installKeptHashes },
  },
  {
    number: 22,
    name: 'stale-undropped',
    defect: 'a second preemption delivers output that a cache reset had thrown away',
    source: 'vllm#48245: an undrained share stays dropped',
    base: 'deltas',
    mutation: { install: installUndroppedOutput },
  },
  {
    number: 23,
    name: 'drafts-beyond-model',
    defect: 'drafts are verified behind the last position of the model',
    source: 'vLLM’s scheduler: the input position must not exceed the model length',
    base: 'deltas',
    mutation: { install: installLongerModel },
  },
];
