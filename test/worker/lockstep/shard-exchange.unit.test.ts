// Shards of rows between the ranks of an engine: each rank gets those of all, of the pass that it has ended (L3).

import { expect, test } from 'vitest';
import { ShardExchange } from '../../../src/worker/pipeline/lockstep/shard-exchange.ts';

const SHARD_WORDS = 3;
const shard = (rank: number, pass: number): Uint32Array =>
  Uint32Array.from({ length: SHARD_WORDS }, (_, i) => 100 * pass + 10 * rank + i);

test('each rank takes the shards of its engine in their order, also while a faster one leaves the next', () => {
  const words = new Int32Array(ShardExchange.numWords(4, SHARD_WORDS));
  const exchange = new ShardExchange(words, 4, SHARD_WORDS);
  for (let pass = 0; pass < 4; pass++) {
    for (let rank = 0; rank < 4; rank++) exchange.leave(rank, pass, shard(rank, pass));
    // Rank 3 is released first, takes, runs the next pass and leaves its shard, before the others have taken.
    exchange.leave(3, pass + 1, shard(3, pass + 1));
    expect([...exchange.take([2, 3], pass, SHARD_WORDS)]).toEqual([...shard(2, pass), ...shard(3, pass)]);
    expect([...exchange.take([0, 1], pass, SHARD_WORDS)]).toEqual([...shard(0, pass), ...shard(1, pass)]);
  }
});

test('a step of fewer rows takes what was left of it, and nothing of an earlier one', () => {
  const exchange = new ShardExchange(new Int32Array(ShardExchange.numWords(2, SHARD_WORDS)), 2, SHARD_WORDS);
  for (const rank of [0, 1]) exchange.leave(rank, 0, shard(rank, 0));
  for (const rank of [0, 1]) exchange.leave(rank, 2, shard(rank, 2).subarray(0, 2));
  expect([...exchange.take([0, 1], 2, 2)]).toEqual([200, 201, 210, 211]);
});
