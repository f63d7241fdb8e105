/** What the engine core returns to its driver. */

import type { RoutedExpertsError } from './errors.ts';
import type { RoutedRows } from './routed-rows.ts';

/**
 * `stop`: a stop token or EOS. `length`: `maxTokens` or `maxModelLen`. `abort`: its caller. `error`: what it needs was
 * lost.
 */
export type FinishReason = 'stop' | 'length' | 'abort' | 'error';

/** What became of the prompt. */
export type PrefillStatistics = Readonly<{
  numPromptTokens: number;
  /** Prompt tokens that the first admission found in the prefix cache. */
  numCachedTokens: number;
  numPreemptions: number;
}>;

/** What one step brought for one request. */
export type EngineCoreOutput = Readonly<{
  requestId: string;
  newTokenIds: readonly number[];
  /** `null` while the request goes on. */
  finishReason: FinishReason | null;
  /** The stop token that ended it; `null` for EOS, length and abort. */
  stopReason: number | null;
  /** With the first tokens, and at the end; `null` in between. */
  prefill: PrefillStatistics | null;
  /**
   * At the end, of a request that opted in: rows of the positions `[start, numTokens - 1)`. Designs that emit as they
   * go attach the rows of this output's positions instead; the frontend joins them.
   */
  routedExperts: RoutedRows | null;
  /** Why this request ended with `error`: DESIGN_FAILED. Absent: it did not, or the workers are lost for good. */
  failure?: RoutedExpertsError;
}>;
