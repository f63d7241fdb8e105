/**
 * Where the tensor-parallel ranks of an engine leave the rows that each has routed, for all of them to take: the
 * all-gather of sequence parallelism behind a modular kernel. It does not wait: the barrier behind the pass does.
 *
 *     words   even passes   [ shard of rank 0 ][ shard of rank 1 ] …
 *             odd passes    [ shard of rank 0 ][ shard of rank 1 ] …
 *
 * Invariant: a rank leaves its shard before it arrives for the pass, and takes all of them before it arrives for the
 * next. So no rank leaves one for the pass after the next while another still takes, and two places for each suffice.
 */
export class ShardExchange {
  readonly #words: Int32Array;
  readonly #numRanks: number;
  /** The most words of a shard. */
  readonly #shardWords: number;

  constructor(words: Int32Array, numRanks: number, shardWords: number) {
    this.#words = words;
    this.#numRanks = numRanks;
    this.#shardWords = shardWords;
  }

  static numWords(numRanks: number, shardWords: number): number {
    return 2 * numRanks * shardWords;
  }

  /** Before the rank arrives for the pass. */
  leave(rank: number, pass: number, shard: Uint32Array): void {
    this.#words.set(shard, this.#placeOf(rank, pass));
  }

  /** Behind the pass: the first `numWords` of the shard of each rank, one behind the other. */
  take(ranks: readonly number[], pass: number, numWords: number): Uint32Array<ArrayBuffer> {
    const all = new Uint32Array(ranks.length * numWords);
    for (const [i, rank] of ranks.entries()) {
      const at = this.#placeOf(rank, pass);
      all.set(this.#words.subarray(at, at + numWords), i * numWords);
    }
    return all;
  }

  #placeOf(rank: number, pass: number): number {
    return ((pass % 2) * this.#numRanks + rank) * this.#shardWords;
  }
}
