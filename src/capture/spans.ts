/**
 * The index by which a payload of rows says which request and positions they belong to:
 *
 *     index   [ request, first position, number of rows ][ request, … ]
 *     rows    [ row, row, row, …                        ][ row, …     ]
 */

import type { RoutedExpertDeltas } from '../contract/model-runner-output.ts';

export const SPAN_LENGTH = 3;

/** Writes the index of a payload while its rows are put together. */
export class SpanWriter {
  readonly #index: Uint32Array;
  #indexLength = 0;
  /** Rows of all spans so far. */
  numRows = 0;

  constructor(mostSpans: number) {
    this.#index = new Uint32Array(mostSpans * SPAN_LENGTH);
  }

  /** The next `count` rows are those of the request from `position` on. Rows that continue a span become part of it. */
  add(requestIndex: number, position: number, count: number): void {
    const index = this.#index;
    const last = this.#indexLength - SPAN_LENGTH;
    this.numRows += count;
    const lastEnd = last >= 0 && index[last] === requestIndex ? index[last + 1]! + index[last + 2]! : -1;
    if (position === lastEnd) {
      index[last + 2]! += count;
      return;
    }
    index[this.#indexLength++] = requestIndex;
    index[this.#indexLength++] = position;
    index[this.#indexLength++] = count;
  }

  /** The payload. `rows` begins with the rows of the spans. */
  deltas(rows: Uint8Array): RoutedExpertDeltas {
    return { rows, numRows: this.numRows, index: this.#index, indexLength: this.#indexLength };
  }
}

/**
 * Reads the spans in order. After each `next()` that returns `true`, the fields are those of one span. It is a cursor
 * and not a callback because the scheduler's thread runs it for every request of every step.
 */
export class SpanReader {
  requestIndex = 0;
  position = 0;
  count = 0;
  /** The place of the span's first row in the payload. */
  row = 0;
  #at = 0;
  readonly #index: Uint32Array;
  readonly #indexLength: number;

  constructor({ index, indexLength }: Pick<RoutedExpertDeltas, 'index' | 'indexLength'>) {
    this.#index = index;
    this.#indexLength = indexLength;
  }

  next(): boolean {
    if (this.#at >= this.#indexLength) return false;
    this.row += this.count;
    this.requestIndex = this.#index[this.#at++]!;
    this.position = this.#index[this.#at++]!;
    this.count = this.#index[this.#at++]!;
    return true;
  }
}
