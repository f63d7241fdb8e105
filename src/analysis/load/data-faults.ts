/** What is wrong with rows: found on the way, and told with how much of it there is and where it begins. */

import type { PositionRange } from '../../contract/routed-rows.ts';
import type { RowIds, RowsShape } from '../../rows/row-batch.ts';

/** Rows `[from, to)` are the same. */
export type EqualRun = Readonly<{
  from: number;
  to: number;
  /** The first layer's ids. */
  ids: readonly number[];
  /** Different vectors of router weights in it; `null`: the form has none. */
  distinctWeights: number | null;
}>;

export type FaultReport = Readonly<{
  /** Long runs of equal rows: profiling, warm-up, padding. At most `MOST_LISTED`, of `numRunRows` rows together. */
  runs: readonly EqualRun[];
  /** The longest run that is too short for that, and counts. */
  longestCounted: Readonly<{ from: number; length: number }>;
  numRuns: number;
  numRunRows: number;
  /** Rows without an id, and rows whose ids are all 0. */
  missing: FoundRows;
  zeros: FoundRows;
  /** Rows that name an expert twice in a layer. */
  repeated: Readonly<{ numRows: number; firstRow: number | null }>;
  /** Single places without an id, in rows that have others. */
  numEmptyEntries: number;
  /** Rows in which a layer has zeros only, by layer. A layer that has them in every row is a dense one. */
  zeroLayerRows: readonly number[];
  /** `null`: the form has no weights. */
  weights: WeightReport | null;
}>;

export type FoundRows = Readonly<{ numRows: number; ranges: readonly PositionRange[] }>;

export type WeightReport = Readonly<{
  /** Of a layer of a row. */
  leastSum: number;
  greatestSum: number;
  /** Rows whose weights are all 1/K: ties, as of a router without input. */
  numTiedRows: number;
}>;

const MOST_LISTED = 20;
const TIE = 1e-6;

export class DataFaults {
  readonly #shape: RowsShape;
  readonly #runs: EqualRun[] = [];
  #numRuns = 0;
  #longestCounted = { from: 0, length: 0 };
  #numRunRows = 0;
  readonly #missing: RowRanges = new RowRanges();
  readonly #zeros: RowRanges = new RowRanges();
  #numRepeated = 0;
  #firstRepeated: number | null = null;
  #numEmptyEntries = 0;
  readonly #zeroLayerRows: Float64Array;
  #leastSum = Infinity;
  #greatestSum = -Infinity;
  #numTiedRows = 0;
  /** Rows whose weights differ from those of the row before: the latest ones suffice. */
  #weightChanges: number[] = [];
  #lastWeights: Float64Array | null = null;

  constructor(shape: RowsShape) {
    this.#shape = shape;
    this.#zeroLayerRows = new Float64Array(shape.numLayers);
  }

  addRun(from: number, length: number, ids: RowIds): void {
    const to = from + length;
    this.#numRunRows += length;
    // Passes of equal rows may follow one another.
    const newest = this.#runs.at(-1);
    const goesOn = newest?.to === from;
    const start = goesOn ? newest.from : from;
    const changes = this.#weightChanges.filter((row) => row > start && row < to).length;
    const distinctWeights = this.#lastWeights === null ? null : changes + 1;
    const run = { from: start, to, ids: [...ids.subarray(0, this.#shape.topK)], distinctWeights };
    if (goesOn) {
      this.#runs[this.#runs.length - 1] = run;
      return;
    }
    this.#numRuns++;
    if (this.#runs.length < MOST_LISTED) this.#runs.push(run);
  }

  /** A run that counts. */
  addCounted(from: number, length: number): void {
    if (length > this.#longestCounted.length) this.#longestCounted = { from, length };
  }

  addMissing(row: number, count: number): void {
    this.#missing.add(row, count);
  }

  addZeros(row: number, count: number): void {
    this.#zeros.add(row, count);
  }

  addRepeated(row: number, count: number): void {
    this.#numRepeated += count;
    this.#firstRepeated ??= row;
  }

  addEmpty(count: number): void {
    this.#numEmptyEntries += count;
  }

  addZeroLayer(layer: number, count: number): void {
    this.#zeroLayerRows[layer]! += count;
  }

  /** The weights of one row, at `at`. */
  addWeights(weights: Float64Array, at: number, row: number): void {
    const { numLayers, topK } = this.#shape;
    let isTied = true;
    let isSame = this.#lastWeights !== null;
    this.#lastWeights ??= new Float64Array(numLayers * topK);
    for (let layer = 0; layer < numLayers; layer++) {
      let sum = 0;
      for (let i = layer * topK; i < (layer + 1) * topK; i++) {
        const weight = weights[at + i]!;
        sum += weight;
        if (Math.abs(weight - 1 / topK) > TIE) isTied = false;
        if (weight !== this.#lastWeights[i]) isSame = false;
        this.#lastWeights[i] = weight;
      }
      this.#leastSum = Math.min(this.#leastSum, sum);
      this.#greatestSum = Math.max(this.#greatestSum, sum);
    }
    if (isTied && topK > 1) this.#numTiedRows++;
    if (isSame) return;
    this.#weightChanges.push(row);
    if (this.#weightChanges.length > 2 * MOST_CHANGES) this.#weightChanges = this.#weightChanges.slice(-MOST_CHANGES);
  }

  report(): FaultReport {
    return {
      runs: this.#runs,
      longestCounted: this.#longestCounted,
      numRuns: this.#numRuns,
      numRunRows: this.#numRunRows,
      missing: this.#missing.report(),
      zeros: this.#zeros.report(),
      repeated: { numRows: this.#numRepeated, firstRow: this.#firstRepeated },
      numEmptyEntries: this.#numEmptyEntries,
      zeroLayerRows: [...this.#zeroLayerRows],
      weights:
        this.#lastWeights === null
          ? null
          : { leastSum: this.#leastSum, greatestSum: this.#greatestSum, numTiedRows: this.#numTiedRows },
    };
  }
}

const MOST_CHANGES = 100_000;

/** Rows that are added in order. The first ranges are listed, all are counted. */
class RowRanges {
  readonly #ranges: [from: number, to: number][] = [];
  #numRows = 0;

  add(row: number, count: number): void {
    this.#numRows += count;
    const newest = this.#ranges.at(-1);
    if (newest?.[1] === row) newest[1] += count;
    else if (this.#ranges.length < MOST_LISTED) this.#ranges.push([row, row + count]);
  }

  report(): FoundRows {
    return { numRows: this.#numRows, ranges: this.#ranges };
  }
}
