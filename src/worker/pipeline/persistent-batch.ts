/**
 * What a worker remembers of each request between steps: its place in the batch, its block table, and the tokens that
 * the host knows.
 */

import type { EngineConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { NewRequestData, SchedulerOutput } from '../../contract/scheduler-output.ts';
import { RequestKind } from '../../contract/scheduler-output.ts';

export type BatchEntry = {
  readonly data: NewRequestData;
  /** Row of the block table on the device, and of `lastToken`. */
  readonly slot: number;
  numBlocks: number;
  /** Tokens whose KV is valid: those that the scheduler counts, less drafts that were refused since. */
  numComputedTokens: number;
};

/**
 * The batch is an array of `maxNumSeqs` slots. A request keeps its slot from its first step until it ends or loses its
 * KV, and requests run in slot order, which need not be the scheduler's.
 *
 * Invariant: `#entries` and `#freeSlots` share no slot and together hold all.
 */
export class PersistentBatch {
  /** Host mirror of the device's block table: block `b` of slot `s` at `s · maxBlocksPerSeq + b`. */
  readonly #blockTable: Uint32Array;
  readonly #maxBlocksPerSeq: number;
  readonly #blockSize: number;
  readonly #entries: Map<number, BatchEntry> = new Map();
  readonly #freeSlots: number[];

  constructor(config: EngineConfig, maxBlocksPerSeq: number) {
    this.#blockSize = config.blockSize;
    this.#maxBlocksPerSeq = maxBlocksPerSeq;
    this.#blockTable = new Uint32Array(config.maxNumSeqs * maxBlocksPerSeq);
    this.#freeSlots = Array.from({ length: config.maxNumSeqs }, (_, i) => config.maxNumSeqs - 1 - i);
  }

  get size(): number {
    return this.#entries.size;
  }

  get(requestIndex: number): BatchEntry {
    const entry = this.#entries.get(requestIndex);
    if (entry === undefined)
      throw RoutedExpertsError.of('INVARIANT', `the worker does not know request ${requestIndex}`);
    return entry;
  }

  /** Drops requests that ended or lost their KV. */
  forget(requestIndices: readonly number[]): void {
    for (const index of requestIndices) {
      const entry = this.#entries.get(index);
      if (entry === undefined) continue;
      this.#entries.delete(index);
      this.#freeSlots.push(entry.slot);
    }
  }

  /**
   * Takes in the step's new and resumed requests and every request's new blocks. `update` is called for each block, to
   * repeat it on the device.
   */
  admit(step: SchedulerOutput, update: (batchSlot: number, blockOrdinal: number, blockId: number) => void): void {
    let nextNew = 0;
    for (let i = 0; i < step.numRequests; i++) {
      const isRunning = step.kinds[i] === RequestKind.running;
      const entry = isRunning ? this.get(step.requestIndices[i]!) : this.#add(step.newRequests[nextNew++]!);
      if (!isRunning) entry.numComputedTokens = step.numComputedTokens[i]!;
      for (let b = step.newBlockOffsets[i]!; b < step.newBlockOffsets[i + 1]!; b++) {
        const blockId = step.newBlockIds[b]!;
        this.#blockTable[entry.slot * this.#maxBlocksPerSeq + entry.numBlocks] = blockId;
        update(entry.slot, entry.numBlocks++, blockId);
      }
    }
  }

  /** The last `numTokens` computed tokens were refused drafts. The request may be gone since. */
  rollBack(requestIndex: number, numTokens: number): void {
    const entry = this.#entries.get(requestIndex);
    if (entry !== undefined) entry.numComputedTokens -= numTokens;
  }

  /** Returns the KV slot of a position of the request. */
  slotOf(entry: BatchEntry, position: number): number {
    const ordinal = Math.floor(position / this.#blockSize);
    const blockId = this.#blockTable[entry.slot * this.#maxBlocksPerSeq + ordinal]!;
    return blockId * this.#blockSize + (position % this.#blockSize);
  }

  #add(data: NewRequestData): BatchEntry {
    const slot = this.#freeSlots.pop();
    if (slot === undefined) throw RoutedExpertsError.of('INVARIANT', 'more requests than maxNumSeqs in the batch');
    const entry = { data, slot, numBlocks: 0, numComputedTokens: 0 };
    this.#entries.set(data.index, entry);
    return entry;
  }
}
