/** Counts blocks and requests anew. For tests and simulations, between any two calls of the engine. */

import { RoutedExpertsError } from '../contract/errors.ts';
import { QueueName, RequestStatus, type Request } from './request.ts';
import type { LiveRequests } from './live-requests.ts';

/** In place of a block's number of holders: it is on the free list. */
const FREE = -1;

const broken = (what: string): RoutedExpertsError => RoutedExpertsError.of('INVARIANT', what);

/**
 * Throws INVARIANT if a block's holders and its reference count differ, if a block is both held and free or neither, if
 * a request is in two lists, or if a waiting request holds blocks without loaded KV. O(requests · blocks).
 */
export const checkIntegrity = ({ config, kv, running, waiting, handovers }: LiveRequests): void => {
  const { pool } = kv;
  const holders = new Int32Array(pool.numBlocks);
  for (const request of running) {
    const { status, queueName, numComputedTokens, numOutputPlaceholders } = request;
    const name = (): string => `running request "${request.requestId}"`;
    if (status !== RequestStatus.running) throw broken(`${name()} has status ${status}`);
    if (queueName !== QueueName.none) throw broken(`${name()} is also in a queue`);
    for (const id of request.blockIds) holders[id]! += 1;
    const numSlots = request.blockIds.length * config.blockSize;
    if (numComputedTokens > numSlots) {
      throw broken(`${name()} has computed ${numComputedTokens} tokens in ${numSlots} slots`);
    }
    if (request.numStaleOutputTokens > 0 && !request.dropStaleOutput) {
      throw broken(`${name()} was resumed before its own tokens arrived`);
    }
    if (numOutputPlaceholders < 0) throw broken(`${name()} has ${numOutputPlaceholders} placeholders`);
  }
  for (const request of waiting.toArray()) {
    const { status, blockIds } = request;
    const name = (): string => `waiting request "${request.requestId}"`;
    if (blockIds.length > 0 && handovers?.loaded.has(request) !== true) {
      throw broken(`${name()} holds ${blockIds.length} blocks`);
    }
    for (const id of blockIds) holders[id]! += 1;
    const waits = status === RequestStatus.waiting || status === RequestStatus.preempted;
    if (!waits) throw broken(`${name()} has status ${status}`);
  }
  if (handovers !== null) {
    for (const request of handovers.loading.values()) addHandedOver(request, holders);
    for (const request of handovers.kept.values()) addHandedOver(request, holders);
  }
  let numFree = 0;
  for (const id of pool.freeQueue()) {
    if (holders[id]! > 0) throw broken(`block ${id} has ${holders[id]} holders and is free`);
    if (holders[id] === 0) numFree += 1;
    holders[id] = FREE;
  }
  if (numFree !== pool.numFree) throw broken(`${numFree} blocks are on the free list, ${pool.numFree} are counted`);
  if (holders[0] !== 0) throw broken('the null block is in use');
  for (let id = 1; id < pool.numBlocks; id += 1) {
    const count = pool.refCount(id);
    if (holders[id] === 0) throw broken(`block ${id} counts ${count}, has no holders and is not free`);
    const numHolders = holders[id] === FREE ? 0 : holders[id];
    if (count !== numHolders) throw broken(`block ${id} has ${numHolders} holders but counts ${count}`);
  }
};

/** The blocks of a request whose KV is on its way. */
function addHandedOver({ requestId, queueName, blockIds }: Request, holders: Int32Array): void {
  if (queueName !== QueueName.none) throw broken(`request "${requestId}", whose KV is handed over, is also in a queue`);
  for (const id of blockIds) holders[id]! += 1;
}
