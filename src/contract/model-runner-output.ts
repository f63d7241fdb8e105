/** A worker's output of one step: vLLM's ModelRunnerOutput as a struct of arrays. */

/**
 * Rows on their way from a worker half to the engine half of the same design. What `index` means is between the two
 * halves; under `deltas` it holds spans `(request index, first position, number of rows)`, in the order of `rows`.
 */
export type RoutedExpertDeltas = Readonly<{
  /**
   * `[numRows, L, K]`, little-endian, in the row dtype, from the first byte of its buffer on. May be longer: the buffer
   * is recycled.
   */
  rows: Uint8Array;
  numRows: number;
  index: Uint32Array;
  /** How many entries of `index` are used. */
  indexLength: number;
  /**
   * Spans as in `index` of a design that stages can be joined for: rows of the step that one of the stages did not
   * deliver, and which are missing for good. Absent: there are none.
   */
  missing?: Uint32Array;
  /** Of a pipeline stage: the column of a row, counted in layers, at which its ids begin. Absent = 0. */
  firstLayer?: number;
}>;

/** Entry `i` belongs to the i-th request in *the worker's* order, which need not be the scheduler's. */
export type ModelRunnerOutput = Readonly<{
  stepId: number;
  numRequests: number;
  requestIndices: Uint32Array;
  /**
   * Sampled tokens of request `i`: `sampledTokenIds[sampledOffsets[i] … sampledOffsets[i + 1])`. There is none while
   * its prompt is not done.
   */
  sampledTokenIds: Uint32Array;
  sampledOffsets: Uint32Array;
  /** Synchronous speculative decoding: the worker's drafts for the next step; `null` otherwise. */
  drafts: Readonly<{ tokenIds: Uint32Array; offsets: Uint32Array }> | null;
  /** `null` when no request of the step opted in, and always for designs whose rows go another way. */
  routedExpertDeltas: RoutedExpertDeltas | null;
}>;
