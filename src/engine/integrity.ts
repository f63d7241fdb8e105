/** Counts blocks and requests anew. For tests and simulations, between any two calls of the engine. */

import { RoutedExpertsError } from '../contract/errors.ts';
import { QueueName, RequestStatus } from './request.ts';
import type { LiveRequests } from './live-requests.ts';

const must = (holds: boolean, what: () => string): void => {
  if (!holds) throw RoutedExpertsError.of('INVARIANT', what());
};

/**
 * Throws INVARIANT if a block's holders and its reference count differ, if a block is both held and free or neither, if
 * a request is in two lists, or if a waiting request holds blocks without loaded KV. O(requests · blocks).
 */
export const checkIntegrity = ({ config, kv, running, waiting, handovers }: LiveRequests): void => {
  const { pool } = kv;
  const holders = new Int32Array(pool.numBlocks);
  for (const request of running) {
    const name = `running request "${request.requestId}"`;
    must(request.status === RequestStatus.running, () => `${name} has status ${request.status}`);
    must(request.queueName === QueueName.none, () => `${name} is also in a queue`);
    for (const id of request.blockIds) holders[id]! += 1;
    const numSlots = request.blockIds.length * config.blockSize;
    must(
      request.numComputedTokens <= numSlots,
      () => `${name} has computed ${request.numComputedTokens} tokens in ${numSlots} slots`,
    );
    const runsAhead = request.numStaleOutputTokens > 0 && !request.dropStaleOutput;
    must(!runsAhead, () => `${name} was resumed before its own tokens arrived`);
    must(request.numOutputPlaceholders >= 0, () => `${name} has ${request.numOutputPlaceholders} placeholders`);
  }
  for (const request of waiting.toArray()) {
    const name = `waiting request "${request.requestId}"`;
    const isLoaded = handovers?.loaded.has(request) === true;
    must(isLoaded || request.blockIds.length === 0, () => `${name} holds ${request.blockIds.length} blocks`);
    for (const id of request.blockIds) holders[id]! += 1;
    const waits = request.status === RequestStatus.waiting || request.status === RequestStatus.preempted;
    must(waits, () => `${name} has status ${request.status}`);
  }
  for (const request of [...(handovers?.loading.values() ?? []), ...(handovers?.kept.values() ?? [])]) {
    const name = `request "${request.requestId}", whose KV is handed over,`;
    must(request.queueName === QueueName.none, () => `${name} is also in a queue`);
    for (const id of request.blockIds) holders[id]! += 1;
  }
  const free = new Set(pool.freeQueue());
  must(free.size === pool.numFree, () => `${free.size} blocks are on the free list, ${pool.numFree} are counted`);
  must(holders[0] === 0 && !free.has(0), () => 'the null block is in use');
  for (let id = 1; id < pool.numBlocks; id += 1) {
    const count = pool.refCount(id);
    must(count === holders[id], () => `block ${id} has ${holders[id]} holders but counts ${count}`);
    must(free.has(id) === (count === 0), () => `block ${id} counts ${count} and is ${free.has(id) ? '' : 'not '}free`);
  }
};
