/** Defects of a hand-over of KV between two engines, as patches of the simulator's two sides of it. */

import { KvKeeper } from '../../handover/kv-keeper.ts';
import { KvLoader } from '../../handover/kv-loader.ts';
import type { RemoteKv } from '../../handover/kv-message.ts';
import { Storm } from '../storm.ts';
import { World } from '../world.ts';
import type { Mutant } from './mutant.ts';

/**
 * A reader does not count: blocks that are released, or whose lease is over, are given to others before they were read.
 */
function installUncountedReaders(): () => void {
  const original = KvKeeper.prototype.read;
  KvKeeper.prototype.read = function read(this: KvKeeper, question, reply) {
    original.call(this, question, reply);
    const kept = this.find(question.requestId);
    if (kept !== null) kept.numReaders = 0;
  };
  return () => {
    KvKeeper.prototype.read = original;
  };
}

/** Loads outlive the workers that they were for. */
function installLoadsThatOutliveWorkers(): () => void {
  const original = KvLoader.prototype.onWorkersLost;
  KvLoader.prototype.onWorkersLost = () => undefined;
  return () => {
    KvLoader.prototype.onWorkersLost = original;
  };
}

/** The engine is not told that there are blocks again. */
function installSilentRelease(): () => void {
  const { releaseBlocks } = World.prototype;
  const { wakeUp } = Storm.prototype;
  let hasReleased = false;
  World.prototype.releaseBlocks = function release(this: World, requestIndex) {
    releaseBlocks.call(this, requestIndex);
    hasReleased = true;
  };
  Storm.prototype.wakeUp = function wake(this: Storm) {
    if (!hasReleased) wakeUp.call(this);
    hasReleased = false;
  };
  return () => {
    World.prototype.releaseBlocks = releaseBlocks;
    Storm.prototype.wakeUp = wakeUp;
  };
}

/** Rows are promised with all KV, whether they are all there or not. */
function installRowsPromisedUnseen(): () => void {
  const original = KvLoader.prototype.externalKv;
  KvLoader.prototype.externalKv = function externalKv(this: KvLoader<RemoteKv>, request) {
    const external = original.call(this, request);
    return external === null ? null : { ...external, hasRows: true };
  };
  return () => {
    KvLoader.prototype.externalKv = original;
  };
}

export const pdMutants: readonly Mutant[] = [
  {
    number: 60,
    name: 'kept-freed-while-read',
    defect: 'kept blocks are given to others while a peer reads them',
    source: 'NIXL connectors: a lease runs out in the middle of a transfer',
    base: 'deltas',
    mutation: { inPd: true, install: installUncountedReaders },
  },
  {
    number: 61,
    name: 'stale-load-finished',
    defect: 'a load that began before a restart is finished after it',
    source: 'found here by a mutation that every test let pass',
    base: 'deltas',
    mutation: { inPd: true, install: installLoadsThatOutliveWorkers },
  },
  {
    number: 62,
    name: 'silent-release',
    defect: 'nobody wakes the engine when kept blocks are given back',
    source: 'found here by a mutation that every test let pass',
    base: 'deltas',
    mutation: { inPd: true, install: installSilentRelease },
  },
  {
    number: 63,
    name: 'rows-promised-unseen',
    defect: 'the decode engine takes it for granted that rows come with KV',
    source: 'vllm#45419 (rows of the prefill engine are optional)',
    base: 'deltas',
    mutation: { inPd: true, install: installRowsPromisedUnseen },
  },
];
