/** The rows of one stage in one step: columns of the model's rows, by request and position. */

import { SpanReader } from '../../../capture/spans.ts';
import type { RoutedExpertDeltas } from '../../../contract/model-runner-output.ts';

/** Rows `[position, position + count)` of a request, from row `row` of the part on. */
export type RowSpan = Readonly<{ position: number; count: number; row: number }>;

type Columns = Readonly<{ byteOffset: number; rowBytes: number }>;

export class RowPart {
  readonly numRows: number;
  readonly indexLength: number;
  readonly #deltas: RoutedExpertDeltas;
  /** Of the part's ids in a row of the model. */
  readonly #columns: Columns;
  /** By request; made when it is asked for. */
  #spans: Map<number, RowSpan[]> | null = null;

  constructor(deltas: RoutedExpertDeltas, columns: Columns) {
    this.numRows = deltas.numRows;
    this.indexLength = deltas.indexLength;
    this.#deltas = deltas;
    this.#columns = columns;
  }

  /** Of a stage whose part did not come. */
  static none(): RowPart {
    const nothing = { rows: new Uint8Array(0), numRows: 0, index: new Uint32Array(0), indexLength: 0 };
    return new RowPart(nothing, { byteOffset: 0, rowBytes: 0 });
  }

  get spans(): ReadonlyMap<number, readonly RowSpan[]> {
    if (this.#spans !== null) return this.#spans;
    this.#spans = new Map();
    for (const span = new SpanReader(this.#deltas); span.next();) {
      const { requestIndex, position, count, row } = span;
      const ofRequest = this.#spans.get(requestIndex);
      if (ofRequest === undefined) this.#spans.set(requestIndex, [{ position, count, row }]);
      else ofRequest.push({ position, count, row });
    }
    return this.#spans;
  }

  /** The span that has a row, or `null`. */
  spanAt(request: number, position: number): RowSpan | null {
    const ofRequest = this.spans.get(request);
    return ofRequest?.find((span) => position >= span.position && position < span.position + span.count) ?? null;
  }

  /** The rows of both are of the same requests and positions, in the same order. */
  hasRowsOf(other: RowPart): boolean {
    const { index, indexLength } = this.#deltas;
    if (indexLength !== other.indexLength || this.numRows !== other.numRows) return false;
    for (let i = 0; i < indexLength; i++) if (index[i] !== other.#deltas.index[i]) return false;
    return true;
  }

  /** A copy of the spans: their memory goes back to the worker. */
  copyIndex(): Uint32Array {
    return this.#deltas.index.slice(0, this.indexLength);
  }

  /** Copies `count` rows from `row` on to their columns of the rows from `to` on in `joined`. */
  copyRows(
    row: number,
    count: number,
    joined: Uint8Array,
    { to, bytesPerRow }: { to: number; bytesPerRow: number },
  ): void {
    const { rows } = this.#deltas;
    const { byteOffset, rowBytes } = this.#columns;
    for (let i = 0; i < count; i++) {
      const from = (row + i) * rowBytes;
      joined.set(rows.subarray(from, from + rowBytes), (to + i) * bytesPerRow + byteOffset);
    }
  }
}
