/**
 * What the engine core tells the workers to do in one step: vLLM's SchedulerOutput as a struct of arrays.
 * Only differences are sent; the worker keeps a persistent batch.
 */

/** How a request comes into a step: as it was, for the first time, or again after a preemption. */
export const RequestKind = { running: 0, new: 1, resumed: 2 } as const;
export type RequestKind = (typeof RequestKind)[keyof typeof RequestKind];

/**
 * A draft token that only the device knows (asynchronous speculative decoding). Where the device knows no draft either,
 * as for a request that joins the batch in this step, it is padding: the worker computes some token in its place and
 * rejects it.
 */
export const PLACEHOLDER_TOKEN = 0xffff_ffff;

/** What a worker is told of a request that joins (or rejoins) its persistent batch. */
export type NewRequestData = Readonly<{
  index: number;
  /** The prompt, and for a resumed request also the outputs so far. */
  tokenIds: Uint32Array;
  /** How many of `tokenIds` hold tokens. */
  numTokens: number;
  numPromptTokens: number;
  /** The most output tokens: the only limit of the request's length that a worker knows. */
  maxTokens: number;
  returnRoutedExperts: boolean;
  routedExpertsPromptStart: number;
}>;

/** Tokens of request `i`: `tokenIds[offsets[i] … offsets[i + 1])`. */
export type TokensByRequest = { tokenIds: Uint32Array; offsets: Uint32Array };

/**
 * Entry `i` of each per-request array belongs to the i-th scheduled request, in the scheduler's order; arrays may be
 * longer than `numRequests`. A `…Offsets` array has `numRequests + 1` entries: entry `i` of its values is `[offsets[i],
 * offsets[i + 1])`.
 *
 * The engine reuses the object and its arrays once the step is finished (`finishStep`): copy what must outlive that.
 */
export type SchedulerOutput = {
  /** Counts up from 0. */
  stepId: number;
  numRequests: number;
  totalNumScheduledTokens: number;
  requestIndices: Uint32Array;
  /** `RequestKind` of each. */
  kinds: Uint32Array;
  /** Tokens already computed before this step, prefix hits included: the position of the first scheduled token. */
  numComputedTokens: Uint32Array;
  /** Tokens to compute in this step, drafts included. */
  numScheduledTokens: Uint32Array;
  /** Blocks to append to the block table; for new and resumed requests the whole table, hits included. */
  newBlockIds: Uint32Array;
  newBlockOffsets: Uint32Array;
  /**
   * Draft tokens among the scheduled ones (always the last), or `PLACEHOLDER_TOKEN` where only the device knows them.
   */
  draftTokenIds: Uint32Array;
  draftOffsets: Uint32Array;
  /**
   * With pipeline stages only: the output tokens among the scheduled ones, drafts aside, of requests that run on. They
   * are the last of each request's. vLLM's `new_token_ids`.
   */
  newTokens?: TokensByRequest;
  /** One per scheduled request of kind new or resumed, in their order. */
  newRequests: NewRequestData[];
  /** Requests that lost their KV since the step before. */
  preemptedIndices: number[];
  /** Requests that ended since the step before: the worker forgets them. */
  finishedIndices: number[];
  /** What the engine half of a capture design tells its worker half; set in `onScheduled`, `null` otherwise. */
  captureMetadata: Uint32Array | null;
};
