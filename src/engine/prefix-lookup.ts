/** How much of what is cached of a prefix a request may use, and how much that was. */

import type { CaptureEngineHalf } from '../contract/capture.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { Request } from './request.ts';

export class PrefixLookup {
  /** Since the start: tokens of admitted and resumed requests, those of them that were found cached, and those that were found and refused. */
  numQueryTokens = 0;
  numHitTokens = 0;
  numRefusedTokens = 0;
  readonly #capture: CaptureEngineHalf | null;
  readonly #blockSize: number;

  constructor(capture: CaptureEngineHalf | null, blockSize: number) {
    this.#capture = capture;
    this.#blockSize = blockSize;
  }

  /** Of the cached blocks `hits`, how many from the front: the capture design may have lost the rows of the others. */
  numUsable(request: Request, hits: readonly number[]): number {
    if (hits.length === 0 || !request.wanted) return hits.length;
    const usable = this.#capture!.usablePrefix(request, hits);
    if (usable >= 0 && usable <= hits.length) return usable;
    throw RoutedExpertsError.of('INVARIANT', `the capture design allows ${usable} of ${hits.length} cached blocks`);
  }

  /** The request was given the first `numHits` of `numFound` blocks. */
  take(request: Request, numFound: number, numHits: number): void {
    this.numQueryTokens += request.numTokens;
    this.numHitTokens += numHits * this.#blockSize;
    this.numRefusedTokens += (numFound - numHits) * this.#blockSize;
    if (numHits > 0 && request.wanted) this.#capture!.onPrefixHit(request, numHits);
  }
}
