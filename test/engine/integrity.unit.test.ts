/** The integrity check finds each way in which blocks, their holders and the free list can disagree. */

import { expect, test } from 'vitest';
import { checkIntegrity } from '../../src/engine/integrity.ts';
import type { LiveRequests } from '../../src/engine/live-requests.ts';
import { QueueName, RequestStatus } from '../../src/engine/request.ts';

type Blocks = Readonly<{
  held: readonly number[];
  free: readonly number[];
  counts: readonly number[];
  numFree?: number;
}>;

/** One running request that holds blocks, and a pool of four that counts as it is told. */
const engineWith = ({ held, free, counts, numFree = free.length }: Blocks): LiveRequests => {
  const running = {
    requestId: 'a',
    status: RequestStatus.running,
    queueName: QueueName.none,
    blockIds: held,
    numComputedTokens: 0,
    numStaleOutputTokens: 0,
    dropStaleOutput: false,
    numOutputPlaceholders: 0,
  };
  const pool = { numBlocks: 4, numFree, freeQueue: () => free, refCount: (id: number) => counts[id] };
  const engine = { config: { blockSize: 2 }, kv: { pool }, running: [running], waiting: { toArray: () => [] } };
  return { ...engine, handovers: null } as unknown as LiveRequests;
};

const SOUND: Blocks = { held: [1], free: [2, 3], counts: [1, 1, 0, 0] };

test('a pool that agrees with its holders is sound', () => {
  expect(() => checkIntegrity(engineWith(SOUND))).not.toThrow();
});

test.each<[string, Partial<Blocks>, RegExp]>([
  ['held and free', { free: [1, 2, 3] }, /block 1 has 1 holders and is free/],
  ['neither held nor free', { free: [2] }, /block 3 counts 0, has no holders and is not free/],
  ['on the free list twice', { free: [2, 3, 3] }, /2 blocks are on the free list, 3 are counted/],
  ['held once and counted twice', { counts: [1, 2, 0, 0] }, /block 1 has 1 holders but counts 2/],
  ['free and counted', { counts: [1, 1, 1, 0] }, /block 2 has 0 holders but counts 1/],
  ['the null block, and held', { held: [0, 1] }, /the null block is in use/],
  ['the null block, and free', { free: [0, 2, 3] }, /the null block is in use/],
])('a block is %s', (_, blocks, message) => {
  expect(() => checkIntegrity(engineWith({ ...SOUND, ...blocks }))).toThrow(message);
});
