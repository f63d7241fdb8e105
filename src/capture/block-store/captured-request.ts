/** One stay of a request in the batch: which row blocks hold its positions. */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { BlockArena } from './block-arena.ts';

/** The rows of a block are nowhere: a hit whose rows were evicted. */
const NOWHERE = -1;

/**
 *     ordinal     0 ……… numHits │ ……… numPublished │ ……………
 *     block       published,     published by it,    private: not full yet,
 *                 held by hash   immutable           or its hash is not known yet
 *     positions   ──────────────────────────────────────▶ end: capture is contiguous, the next row is that of `end`
 */
export class CapturedRequest {
  readonly requestIndex: number;
  readonly #arena: BlockArena;
  readonly #blockSize: number;
  readonly #numHits: number;
  readonly #blocks: number[];
  readonly #hashes: string[] = [];
  #numPublished: number;
  #end: number;
  #numHitsHeld = 0;
  /** Steps whose rows are still to come. */
  numPending = 0;
  /** The request ended or lost its KV: once nothing is pending, its blocks are released. */
  isGone = false;

  /** @param firstPosition the first that it computes in this stay; before it are the blocks that it hit */
  constructor(requestIndex: number, arena: BlockArena, blockSize: number, firstPosition: number) {
    this.requestIndex = requestIndex;
    this.#arena = arena;
    this.#blockSize = blockSize;
    this.#end = firstPosition;
    this.#numHits = firstPosition / blockSize;
    if (!Number.isInteger(this.#numHits)) throw gap(requestIndex, firstPosition, 'the start of a block');
    this.#numPublished = this.#numHits;
    this.#blocks = Array.from({ length: this.#numHits }, () => NOWHERE);
  }

  /**
   * The next rows, `[start, start + count)`, of which `numKept` stand: the next ones follow on those. `put(block,
   * offset, numRows, row)` stores `numRows` of them, from the `row`-th on, in a block. Throws INVARIANT at a gap or a
   * step backwards.
   */
  capture(
    start: number,
    numKept: number,
    put: (block: number, offset: number, numRows: number, row: number) => void,
  ): void {
    if (start !== this.#end) throw gap(this.requestIndex, start, `position ${this.#end}`);
    for (let row = 0; row < numKept;) {
      const ordinal = Math.floor((start + row) / this.#blockSize);
      while (this.#blocks.length <= ordinal) this.#blocks.push(this.#arena.take());
      const offset = start + row - ordinal * this.#blockSize;
      const numRows = Math.min(numKept - row, this.#blockSize - offset);
      put(this.#blocks[ordinal]!, offset, numRows, row);
      row += numRows;
    }
    this.#end = start + numKept;
  }

  /** The next hashes of its blocks; hits included. */
  addHashes(firstOrdinal: number, hashes: readonly string[]): void {
    if (firstOrdinal !== this.#hashes.length) throw gap(this.requestIndex, firstOrdinal, `hash ${this.#hashes.length}`);
    this.#hashes.push(...hashes);
  }

  /** Publishes what is full and has a hash. */
  publish(): void {
    while (this.#numPublished < this.#hashes.length && (this.#numPublished + 1) * this.#blockSize <= this.#end) {
      const ordinal = this.#numPublished++;
      this.#blocks[ordinal] = this.#arena.publish(this.#blocks[ordinal]!, this.#hashes[ordinal]!);
    }
  }

  /**
   * Takes hold of the blocks that it hit. The first call comes before the batch's own blocks are made, which could push
   * hit blocks out. The second finds those that other requests of the batch have just computed and published.
   */
  holdHits(): void {
    if (this.#numHitsHeld === this.#numHits) return;
    const numKnown = Math.min(this.#numHits, this.#hashes.length);
    for (let i = 0; i < numKnown; i++) {
      if (this.#blocks[i] !== NOWHERE) continue;
      const block = this.#arena.hold(this.#hashes[i]!);
      if (block === null) continue;
      this.#blocks[i] = block;
      this.#numHitsHeld++;
    }
  }

  /** The block of a position, or `null` if its rows are nowhere. */
  blockOf(position: number): number | null {
    const block = this.#blocks[Math.floor(position / this.#blockSize)] ?? NOWHERE;
    return block === NOWHERE ? null : block;
  }

  /** Lets go of all blocks, tail first: of a prefix the end goes before the beginning. */
  release(): void {
    for (let ordinal = this.#blocks.length - 1; ordinal >= 0; ordinal--) {
      const block = this.#blocks[ordinal]!;
      if (block !== NOWHERE) this.#arena.release(block);
    }
    this.#blocks.length = 0;
  }
}

const gap = (requestIndex: number, got: number, wanted: string): Error =>
  RoutedExpertsError.of('INVARIANT', `capture of request ${requestIndex} goes on at ${got} instead of ${wanted}`);
