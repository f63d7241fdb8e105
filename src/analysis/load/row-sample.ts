/** The first rows that count, kept for what needs them more than once. */

import type { Capture, CapturedRequest } from '../../rows/captures/capture.ts';
import type { CountedRow } from './row-scan.ts';

export class RowSample {
  readonly #most: number;
  readonly #width: number;
  #ids: Int32Array;
  #numRows = 0;
  readonly #starts: number[] = [];

  /** `mostRows`: more are not kept. */
  constructor(mostRows: number, width: number) {
    this.#most = mostRows;
    this.#width = width;
    this.#ids = new Int32Array(Math.min(mostRows, 1024) * width);
  }

  add({ ids, at, times, startsRequest }: CountedRow): void {
    if (this.#numRows === this.#most) return;
    // Caches and pairs have no place for an id that is not there.
    for (let entry = 0; entry < this.#width; entry++) if (ids[at + entry]! < 0) return;
    if (startsRequest) this.#starts.push(this.#numRows);
    const width = this.#width;
    for (let i = 0; i < times && this.#numRows < this.#most; i++) {
      if ((this.#numRows + 1) * width > this.#ids.length) this.#grow();
      for (let entry = 0; entry < width; entry++) this.#ids[this.#numRows * width + entry] = ids[at + entry]!;
      this.#numRows++;
    }
  }

  capture(shape: Readonly<{ numExperts: number; topK: number; layers: readonly number[] }>): Capture {
    const numRows = this.#numRows;
    const starts = this.#starts.length === 0 ? [0] : this.#starts;
    const requests = starts.map((firstRow, i): CapturedRequest => ({
      id: `r${i}`,
      firstRow,
      numRows: (starts[i + 1] ?? numRows) - firstRow,
      promptLen: null,
      tokens: null,
    }));
    const ids = this.#ids.subarray(0, numRows * this.#width);
    return { ...shape, name: 'sample', numRows, ids, requests, knowsRequests: false, steps: null };
  }

  #grow(): void {
    const ids = new Int32Array(Math.min(this.#most * this.#width, 2 * this.#ids.length));
    ids.set(this.#ids);
    this.#ids = ids;
  }
}
