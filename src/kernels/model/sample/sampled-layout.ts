/**
 * The `sampled` buffer: one record per request, in the order in which the worker runs them, so that the first
 * `numRequests · stride` words are all that a step needs to read back (S = numSpeculativeTokens):
 *
 *     ├ count ┼ token 0 … token S ┼ draft 0 … draft S−1 ┤   stride = 2 + 2S words
 *
 * `count` tokens are valid: 0 while the prompt is not done, else 1 + accepted drafts. Drafts, proposals for the next
 * step, are valid if `count` > 0. What is not valid is left over from an earlier step.
 */
export class SampledLayout {
  readonly numSpeculativeTokens: number;
  /** Words per request. */
  readonly stride: number;

  constructor(numSpeculativeTokens: number) {
    this.numSpeculativeTokens = numSpeculativeTokens;
    this.stride = 2 + 2 * numSpeculativeTokens;
  }

  /** Bytes to read back after a step of `numRequests` requests. */
  byteLength(numRequests: number): number {
    return numRequests * this.stride * 4;
  }

  count(words: Uint32Array, request: number): number {
    return words[request * this.stride] ?? 0;
  }

  /** Place of the request's first sampled token. */
  tokensAt(request: number): number {
    return request * this.stride + 1;
  }

  /** Place of the request's first draft. */
  draftsAt(request: number): number {
    return request * this.stride + 2 + this.numSpeculativeTokens;
  }
}
