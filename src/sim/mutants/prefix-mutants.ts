/** Defects of sharing: which cached block a request gets, and which blocks a capture design is told of. */

import { BlockPool } from '../../engine/kv/block-pool.ts';
import type { Mutant } from './mutant.ts';

/** Every lookup ends with the first inserted block of a hash. */
function installFirstInserted(): () => void {
  const { findNext } = BlockPool.prototype;
  BlockPool.prototype.findNext = () => -1;
  return () => {
    BlockPool.prototype.findNext = findNext;
  };
}

/** Once a pool has followed a block it follows every block. */
function installFollowsForEver(): () => void {
  const { cache, follow } = BlockPool.prototype;
  const latched = new WeakSet<BlockPool>();
  BlockPool.prototype.follow = function (this: BlockPool, blockId) {
    latched.add(this);
    follow.call(this, blockId);
  };
  BlockPool.prototype.cache = function (this: BlockPool, blockId, hashes, at) {
    cache.call(this, blockId, hashes, at);
    if (latched.has(this)) follow.call(this, blockId);
  };
  return () => {
    Object.assign(BlockPool.prototype, { cache, follow });
  };
}

function installFollowsNone(): () => void {
  const { follow } = BlockPool.prototype;
  BlockPool.prototype.follow = () => {};
  return () => {
    BlockPool.prototype.follow = follow;
  };
}

export const prefixMutants: readonly Mutant[] = [
  {
    number: 90,
    name: 'first-inserted',
    defect: 'a request that wants rows gets the first inserted block of a hash, whatever its rows',
    source: 'an earlier state of this engine: one ordinary request ended the sharing of its prefix',
    base: 'deltas',
    mutation: { install: installFirstInserted },
  },
  {
    number: 91,
    name: 'evictions-latched',
    defect: 'after the first opted-in request the design hears of every eviction',
    source: 'an earlier state of this engine',
    base: 'deltas',
    mutation: { install: installFollowsForEver },
  },
  {
    number: 92,
    name: 'evictions-untold',
    defect: 'the design does not hear that a block with rows was evicted',
    source: 'the opposite mistake to number 91',
    base: 'deltas',
    mutation: { install: installFollowsNone },
  },
];
