/** The rows that stay with cached KV blocks. */

import type { RowRun } from './row-run.ts';

/**
 *     block pool     5: H(a)      9: H(ab)     2: H(abc)     7: –
 *                      │            │            │
 *     runs           [ all rows stand   ]      [ 3 of 16 ]      the step of block 2 is in flight, and brings the rest
 *                      ▲  ▲         ▲            ▲
 *     request A ───────┘──│─────────┘────────────┘              computes them; may be preempted or aborted meanwhile
 *     request B ──────────┘                                     hit block 5 and holds the same run: nothing is copied
 *
 * A block has its hash, and can be hit, before its forward pass has run. A run is therefore attached when its blocks
 * are cached, empty or not. Its rows come with the outputs of the steps that were scheduled by then, whatever becomes
 * of the request that scheduled them.
 *
 * Invariant: a run is attached only to cached blocks, and all rows of a block from the run's `first` on stand or are
 * under way. A block has no run if no request asked for its rows. Where the step that was to fill a block is taken
 * back, the scheduler takes the hash back with it, and the run goes as in an eviction.
 *
 * Memory: a run is released as a whole. When a block is evicted and at most half of the blocks whose rows stand are
 * still cached, each stretch of them gets a run of its own. So at most twice as much is kept as can be hit, except for
 * runs whose rows are still under way, and for the room in the last run of a table (`TableRows`). At least as many
 * blocks with rows were evicted as are copied: in all no more rows are moved than ever came.
 */
export class BlockRows {
  readonly #blockSize: number;
  /** By block id: as long as the highest one that was ever attached. */
  readonly #byBlock: (AttachedRun | null)[] = [];
  readonly #byRun: Map<RowRun, AttachedRun> = new Map();

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
  }

  /** The block was cached as number `i` of its table, and its rows are in `run`. */
  attach(blockId: number, i: number, run: RowRun): void {
    let attached = this.#byRun.get(run);
    if (attached === undefined) {
      const numBlocks = (run.to - run.from) / this.#blockSize;
      attached = { run, blockIds: Array<number>(numBlocks).fill(NONE), numCached: 0 };
      this.#byRun.set(run, attached);
    }
    attached.blockIds[i - run.from / this.#blockSize] = blockId;
    attached.numCached++;
    while (this.#byBlock.length <= blockId) this.#byBlock.push(null);
    this.#byBlock[blockId] = attached;
  }

  of(blockId: number): RowRun | null {
    return this.#byBlock[blockId]?.run ?? null;
  }

  /** The run with the rows of a cached block, and the position of the block's first token. */
  placeOf(blockId: number): Readonly<{ run: RowRun; from: number }> | null {
    const attached = this.#byBlock[blockId];
    if (!attached) return null;
    const { run, blockIds } = attached;
    return { run, from: run.from + blockIds.indexOf(blockId) * this.#blockSize };
  }

  /** The block lost its hash. Requests that hold the run keep it. */
  evict(blockId: number): void {
    const attached = this.#byBlock[blockId];
    if (!attached) return;
    this.#byBlock[blockId] = null;
    attached.blockIds[attached.blockIds.indexOf(blockId)] = NONE;
    attached.numCached--;
    if (attached.numCached === 0) this.#byRun.delete(attached.run);
    else if (attached.numCached * 2 <= this.#numStanding(attached.run)) this.#thin(attached);
  }

  /** Every block lost its hash. */
  clear(): void {
    this.#byBlock.fill(null);
    this.#byRun.clear();
  }

  get runs(): Iterable<RowRun> {
    return this.#byRun.keys();
  }

  /** Blocks of the run that have all rows that will ever come. */
  #numStanding({ first, end }: RowRun): number {
    return Math.floor((end - first) / this.#blockSize);
  }

  /** Gives each stretch of blocks that are left a run of its own. Waits while their rows are under way. */
  #thin({ run, blockIds }: AttachedRun): void {
    const end = blockIds.findLastIndex((id) => id !== NONE) + 1;
    if (run.end < run.from + end * this.#blockSize) return;
    this.#byRun.delete(run);
    for (let first = 0; first < end; first++) {
      if (blockIds[first] === NONE) continue;
      const from = run.from + first * this.#blockSize;
      const gap = blockIds.indexOf(NONE, first);
      const stretch = blockIds.slice(first, gap < 0 ? end : gap);
      const copy = run.copy(from, from + stretch.length * this.#blockSize);
      for (const [i, blockId] of stretch.entries()) this.attach(blockId, copy.from / this.#blockSize + i, copy);
      first += stretch.length;
    }
  }
}

const NONE = -1;

/** A run, the cached block of each of its places, and how many of these there are. */
type AttachedRun = { run: RowRun; blockIds: number[]; numCached: number };
