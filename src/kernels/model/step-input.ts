/**
 * Everything that the kernels need to know of one step, in one array of u32, so that one `writeBuffer` carries it:
 *
 *     word 0         8            8+T            8+2T            8+2T+8R               8+2T+8R+2U
 *     ├ header (8) ──┼ tokenIds T ┼ tokenRequests T ┼ requests R × 8 ┼ tableUpdates U × 2 ┤
 *
 *     header        numTokens · numRequests · numTableUpdates · epoch,
 *                   then where tokenRequests, requests and tableUpdates start, and 0
 *     request       batchSlot · tokenStart · tokenCount · rowStart · numDrafts · samples (0/1) · 0 · 0
 *     tableUpdate   flat index into the block table [maxNumSeqs, maxBlocksPerSeq] · block id
 *
 * The sections are packed for each step's own T, R and U: bytes uploaded grow with the step. The KV slots of the rows
 * travel apart (`slotMapping`), since capture designs read them back.
 *
 * Ordinals: a *row* is a token's place in the step, a *request ordinal* a request's; the *batch slot* is the request's
 * place in the persistent batch, which it keeps as long as it runs. It names the rows of block table and last tokens on
 * the device.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { KernelShape } from './kernel-shape.ts';

/**
 * A token id that only the device knows: the last token sampled for that batch slot, or one of the drafts proposed with
 * it.
 */
export const FROM_DEVICE = 0xffff_ffff;

export const HEADER_WORDS = 8;
export const REQUEST_WORDS = 8;

/** Places in the header. */
export const Header = {
  numTokens: 0,
  numRequests: 1,
  numTableUpdates: 2,
  epoch: 3,
  tokenRequests: 4,
  requests: 5,
  tableUpdates: 6,
} as const;

/** Places in a request's entry. */
export const RequestField = {
  batchSlot: 0,
  tokenStart: 1,
  tokenCount: 2,
  rowStart: 3,
  numDrafts: 4,
  samples: 5,
} as const;

/**
 * The host's side of one step. One object serves every step: `begin`, then one `addRequest` per request in the order in
 * which the worker runs them, and its `tokenIds`, `slotMapping` and table updates in any order; `end` before
 * `ForwardPass.upload`.
 *
 *     input.begin(numTokens, numRequests, numTableUpdates);
 *     const row = input.addRequest(batchSlot, tokenStart, tokenCount, numDrafts, samples);
 *     input.setToken(row, id);  input.setSlot(row, slot);  input.addTableUpdate(batchSlot, blockOrdinal, blockId);
 *     input.end();
 */
export class StepInput {
  readonly shape: KernelShape;
  /** The whole array; only the first `numWords` are of this step. */
  readonly words: Uint32Array;
  /** KV slot of each row, `[maxNumBatchedTokens]`; only the first `numTokens` are of this step. */
  readonly slotMapping: Uint32Array;

  #numTokens = 0;
  #numRequests = 0;
  #numTableUpdates = 0;
  #addedTokens = 0;
  #addedRequests = 0;
  #addedTableUpdates = 0;

  constructor(shape: KernelShape) {
    this.shape = shape;
    this.words = new Uint32Array(stepInputWords(shape));
    this.slotMapping = new Uint32Array(shape.maxNumBatchedTokens);
  }

  get numTokens(): number {
    return this.#numTokens;
  }

  get numRequests(): number {
    return this.#numRequests;
  }

  get numTableUpdates(): number {
    return this.#numTableUpdates;
  }

  get numWords(): number {
    return HEADER_WORDS + 2 * this.#numTokens + REQUEST_WORDS * this.#numRequests + 2 * this.#numTableUpdates;
  }

  /**
   * Opens a step. `epoch` 0 is the deterministic mode; any other value is folded into the keys that the step writes, so
   * that rows and tokens tell whose forward pass they came from.
   */
  begin(numTokens: number, numRequests: number, numTableUpdates: number, epoch: number = 0): void {
    const { shape } = this;
    requireAtMost('tokens of a step', numTokens, shape.maxNumBatchedTokens);
    requireAtMost('requests of a step', numRequests, shape.maxNumSeqs);
    requireAtMost('block-table updates of a step', numTableUpdates, maxTableUpdates(shape));
    this.#numTokens = numTokens;
    this.#numRequests = numRequests;
    this.#numTableUpdates = numTableUpdates;
    this.#addedTokens = 0;
    this.#addedRequests = 0;
    this.#addedTableUpdates = 0;
    const requests = HEADER_WORDS + 2 * numTokens;
    this.words[Header.numTokens] = numTokens;
    this.words[Header.numRequests] = numRequests;
    this.words[Header.numTableUpdates] = numTableUpdates;
    this.words[Header.epoch] = epoch;
    this.words[Header.tokenRequests] = HEADER_WORDS + numTokens;
    this.words[Header.requests] = requests;
    this.words[Header.tableUpdates] = requests + REQUEST_WORDS * numRequests;
    this.words[HEADER_WORDS - 1] = 0;
  }

  /**
   * Adds the next request and returns the row of its first token.
   *
   * @param batchSlot its place in the persistent batch, in `[0, maxNumSeqs)`
   * @param tokenStart position of the first token that it computes in this step
   * @param tokenCount how many, drafts included; ≥ 1
   * @param numDrafts how many of them, the last ones, are drafts to be verified; < `tokenCount`
   * @param samples whether its last token's successor is to be sampled: false while its prompt is not done
   */
  addRequest(batchSlot: number, tokenStart: number, tokenCount: number, numDrafts: number, samples: boolean): number {
    const row = this.#addedTokens;
    if (tokenCount < 1 || row + tokenCount > this.#numTokens || this.#addedRequests >= this.#numRequests) {
      throw RoutedExpertsError.of('INVARIANT', `a step of ${this.#numTokens} tokens was given more`);
    }
    if (numDrafts >= tokenCount || numDrafts > this.shape.numSpeculativeTokens) {
      throw RoutedExpertsError.of('INVARIANT', `${numDrafts} drafts among ${tokenCount} tokens`);
    }
    const ordinal = this.#addedRequests;
    const at = HEADER_WORDS + 2 * this.#numTokens + REQUEST_WORDS * ordinal;
    const { words } = this;
    words[at + RequestField.batchSlot] = batchSlot;
    words[at + RequestField.tokenStart] = tokenStart;
    words[at + RequestField.tokenCount] = tokenCount;
    words[at + RequestField.rowStart] = row;
    words[at + RequestField.numDrafts] = numDrafts;
    words[at + RequestField.samples] = samples ? 1 : 0;
    words[at + 6] = 0;
    words[at + 7] = 0;
    const tokenRequests = HEADER_WORDS + this.#numTokens + row;
    words.fill(ordinal, tokenRequests, tokenRequests + tokenCount);
    this.#addedTokens = row + tokenCount;
    this.#addedRequests = ordinal + 1;
    return row;
  }

  /**
   * The token of a row, or `FROM_DEVICE`: allowed for a request's last sampled token (the last row that is no draft)
   * and for its drafts.
   */
  setToken(row: number, tokenId: number): void {
    this.words[HEADER_WORDS + row] = tokenId;
  }

  /** The tokens of rows `[row, row + tokenIds.length)`. */
  setTokens(row: number, tokenIds: Uint32Array): void {
    this.words.set(tokenIds, HEADER_WORDS + row);
  }

  setSlot(row: number, slot: number): void {
    this.slotMapping[row] = slot;
  }

  /**
   * Block `blockOrdinal` of the request in `batchSlot` is `blockId` from this step on. Not twice in a step for one
   * place: the device applies them in no order.
   */
  addTableUpdate(batchSlot: number, blockOrdinal: number, blockId: number): void {
    const { maxBlocksPerSeq } = this.shape;
    if (this.#addedTableUpdates >= this.#numTableUpdates || blockOrdinal >= maxBlocksPerSeq) {
      throw RoutedExpertsError.of(
        'INVARIANT',
        `block ${blockOrdinal} of batch slot ${batchSlot} has no place in the step`,
      );
    }
    const at = HEADER_WORDS + 2 * this.#numTokens + REQUEST_WORDS * this.#numRequests + 2 * this.#addedTableUpdates;
    this.words[at] = batchSlot * maxBlocksPerSeq + blockOrdinal;
    this.words[at + 1] = blockId;
    this.#addedTableUpdates += 1;
  }

  /** Closes the step: what `begin` announced must have come. */
  end(): void {
    if (
      this.#addedTokens !== this.#numTokens ||
      this.#addedRequests !== this.#numRequests ||
      this.#addedTableUpdates !== this.#numTableUpdates
    ) {
      throw RoutedExpertsError.of(
        'INVARIANT',
        `step input announced ${this.#numTokens} tokens, ${this.#numRequests} requests, ` +
          `${this.#numTableUpdates} table updates; ` +
          `got ${this.#addedTokens}, ${this.#addedRequests}, ${this.#addedTableUpdates}`,
      );
    }
  }
}

/** A step can rewrite the whole block table: each running request's row, when all of them join at once. */
export function maxTableUpdates(shape: KernelShape): number {
  return shape.maxNumSeqs * shape.maxBlocksPerSeq;
}

/** Words of the largest step input. */
export function stepInputWords(shape: KernelShape): number {
  return HEADER_WORDS + 2 * shape.maxNumBatchedTokens + REQUEST_WORDS * shape.maxNumSeqs + 2 * maxTableUpdates(shape);
}

function requireAtMost(what: string, value: number, max: number): void {
  if (value > max) throw RoutedExpertsError.of('INVARIANT', `${value} ${what}; at most ${max} fit`);
}
