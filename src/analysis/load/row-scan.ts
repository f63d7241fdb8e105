/**
 * One pass over rows of any number: what each expert was chosen for, what neighbouring rows share, and what is wrong
 * with the data. A row is looked at once, and takes a few operations an id.
 *
 * A row waits until another one follows it, so that equal rows in a row are counted as one run:
 *
 *     rows     a  b  b  b  b  c  d          run of b: 4 rows
 *              └ commit a, once └ commit b, 4 times, or leave them out
 *
 * A cell (layer, expert) is one word, read and written once for each id: the row that chose it last, which makes
 * overlap with the row before one comparison, and its count since the words were last emptied.
 *
 *     bits     31 ──────── count ──────── 12 │ 11 ── number of the row, from 1 ── 0
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RowBatch, RowIds, RowsShape } from '../../rows/row-batch.ts';
import { OverlapCounts } from '../locality/overlap.ts';
import { DataFaults } from './data-faults.ts';
import { WindowCounts } from './window-counts.ts';

/** A row that counts. Valid during the call. */
export type CountedRow = Readonly<{
  ids: RowIds;
  at: number;
  /** The rows `[row, row + times)` of the source are the same. */
  row: number;
  times: number;
  startsRequest: boolean;
}>;

export type RowScanOptions = Readonly<{
  shape: RowsShape;
  /** Whether runs of equal rows and rows of zeros count as traffic. */
  keepsAll?: boolean;
  /** Is called with each row that counts, in order. */
  onRow?: (row: CountedRow) => void;
  /** Is called at the end of each pass, with the rows before it committed. */
  onStep?: () => void;
}>;

/** From this length on a run of equal rows is no traffic: a profiling or warm-up pass, or padding. */
export const LEAST_RUN = 32;

/** More experts than any model has. A greater id is no id. */
const MOST_EXPERTS = 65_536;

const SEQUENCE_BITS = 12;
const SEQUENCE_MASK = 2 ** SEQUENCE_BITS - 1;

export class RowScan {
  readonly #options: RowScanOptions;
  readonly #width: number;
  readonly #topK: number;
  /** Experts that there is room for. Grows where the form does not say how many there are. */
  #room: number;
  /** `[L][room]`, without what the words hold. */
  #counts: Float64Array;
  /** `[L][room]`. */
  #words: Int32Array;
  /** Number of the row that was counted last. */
  #sequence = 1;
  #hasNeighbour = false;
  /** A committed row that no other has followed is looked for here. */
  #waiting: RowIds | null = null;
  #waitingAt = 0;
  #waitingRow = 0;
  #waitingPlace = '';
  #waitingStarts = false;
  #run = 0;
  /** The row of the last run that was left out: further ones of it belong to the same passes. */
  #leftOut: RowIds | null = null;
  #row = 0;
  readonly #overlap: OverlapCounts;
  readonly faults: DataFaults;
  readonly windows: WindowCounts;

  constructor(options: RowScanOptions) {
    const { numLayers, topK, numExperts } = options.shape;
    this.#options = options;
    this.#topK = topK;
    this.#width = numLayers * topK;
    this.#room = numExperts ?? 256;
    this.#counts = new Float64Array(numLayers * this.#room);
    this.#words = new Int32Array(numLayers * this.#room);
    this.#overlap = new OverlapCounts(numLayers, topK);
    this.faults = new DataFaults(options.shape);
    this.windows = new WindowCounts(numLayers);
  }

  /** Rows that count. */
  get numCounted(): number {
    return this.windows.numRows;
  }

  /** Rows that were read. */
  get numRead(): number {
    return this.#row;
  }

  /** The number that the form says, or the greatest id so far, and one. */
  get numExperts(): number {
    const { numExperts, numLayers } = this.#options.shape;
    if (numExperts !== null) return numExperts;
    this.#emptyWords();
    for (let id = this.#room - 1; id >= 0; id--) {
      for (let layer = 0; layer < numLayers; layer++) if (this.#counts[layer * this.#room + id]! > 0) return id + 1;
    }
    return 0;
  }

  /** Selections of each expert, `[L][E]`. Copies. */
  counts(): Float64Array[] {
    const numExperts = this.numExperts;
    this.#emptyWords();
    return Array.from({ length: this.#options.shape.numLayers }, (_, layer) =>
      this.#counts.slice(layer * this.#room, layer * this.#room + numExperts),
    );
  }

  get overlap(): OverlapCounts {
    return this.#overlap;
  }

  /** @throws BAD_FILE for an id beyond the experts */
  add(batch: RowBatch): void {
    const { ids, numRows, weights } = batch;
    const width = this.#width;
    if (batch.startsRequest) this.#startRequest();
    for (let row = 0; row < numRows; row++) {
      const at = row * width;
      if (weights !== undefined) this.faults.addWeights(weights, at, this.#row);
      if (this.#waiting !== null && equal(ids, at, this.#waiting, this.#waitingAt, width)) {
        this.#run++;
      } else {
        this.#commitWaiting(batch);
        this.#waiting = ids;
        this.#waitingAt = at;
        this.#waitingRow = this.#row;
        this.#run = 1;
      }
      this.#row++;
    }
    if (batch.endsStep) this.#endStep(batch);
    // What a batch holds is not valid for longer.
    if (this.#waiting !== null) {
      this.#waitingPlace = batch.placeOf(this.#waiting === ids ? this.#waitingAt : 0);
      this.#waiting = this.#waiting.slice(this.#waitingAt, this.#waitingAt + width);
      this.#waitingAt = 0;
    }
  }

  end(): void {
    this.#commitWaiting(null);
    this.#emptyWords();
    this.windows.end(this.#counts, this.#room);
  }

  #startRequest(): void {
    this.#commitWaiting(null);
    this.#waiting = null;
    this.#hasNeighbour = false;
    this.#waitingStarts = true;
  }

  #endStep(batch: RowBatch): void {
    this.#commitWaiting(batch);
    this.#waiting = null;
    this.#options.onStep?.();
  }

  #commitWaiting(batch: RowBatch | null): void {
    const ids = this.#waiting;
    if (ids === null || this.#run === 0) return;
    const at = this.#waitingAt;
    const times = this.#run;
    this.#run = 0;
    const isKept = this.#isTraffic(ids, at, times);
    if (!isKept) {
      this.#hasNeighbour = false;
      return;
    }
    const { onRow } = this.#options;
    if (onRow !== undefined) onRow({ ids, at, row: this.#waitingRow, times, startsRequest: this.#waitingStarts });
    this.#waitingStarts = false;
    this.#count(ids, at, times, batch);
    if (this.windows.isDue(times)) this.#emptyWords();
    this.windows.add(times, this.#counts, this.#room);
  }

  /** Rows without ids never count. Those of zeros, and long runs, only if all are to be kept. */
  #isTraffic(ids: RowIds, at: number, times: number): boolean {
    const width = this.#width;
    const keepsAll = this.#options.keepsAll === true;
    const row = this.#waitingRow;
    if (ids[at]! < 0 && isAll(ids, at, width, -1)) {
      this.faults.addMissing(row, times);
      return false;
    }
    if (ids[at] === 0 && this.#width > 1 && isAll(ids, at, width, 0)) {
      this.faults.addZeros(row, times);
      return keepsAll;
    }
    const goesOn = this.#leftOut !== null && equal(ids, at, this.#leftOut, 0, width);
    if (times < LEAST_RUN && !goesOn) {
      this.faults.addCounted(row, times);
      return true;
    }
    this.faults.addRun(row, times, ids.subarray(at, at + width));
    this.#leftOut = ids.slice(at, at + width);
    return keepsAll;
  }

  #count(ids: RowIds, at: number, times: number, batch: RowBatch | null): void {
    const topK = this.#topK;
    const numLayers = this.#options.shape.numLayers;
    if (this.#sequence === SEQUENCE_MASK) this.#emptyWords();
    const before = this.#sequence;
    const hasNeighbour = this.#hasNeighbour;
    this.#sequence = before + 1;
    this.#hasNeighbour = true;
    const found = this.#overlap.found;
    let repeated = false;
    for (let layer = 0; layer < numLayers; layer++) {
      const first = at + layer * topK;
      if (topK > 1 && ids[first] === 0 && ids[first + 1] === 0 && isAll(ids, first, topK, 0)) {
        this.faults.addZeroLayer(layer, times);
        continue;
      }

      let counted = countIds(this.#words, layer * this.#room, this.#room - 1, ids, first, topK, before);
      if (counted === NOT_COUNTED) {
        const known = this.#knownIds({ ids, first, topK }, times, batch);
        counted = countIds(this.#words, layer * this.#room, this.#room - 1, known, 0, known.length, before);
      }
      const common = counted % REPEATED;
      if (counted >= REPEATED) repeated = true;
      if (hasNeighbour) found[layer * (topK + 1) + common]!++;
      if (times > 1) this.#addTimes({ ids, first, topK }, layer, times - 1);
    }
    if (repeated) this.faults.addRepeated(this.#waitingRow, times);
  }

  /** The ids that there are, with room for each. */
  #knownIds({ ids, first, topK }: LayerPlace, times: number, batch: RowBatch | null): Int32Array {
    const known: number[] = [];
    for (let entry = first; entry < first + topK; entry++) {
      const id = ids[entry]!;
      if (id < 0) this.faults.addEmpty(times);
      else {
        if (id >= this.#room) this.#makeRoom(id, entry, batch);
        known.push(id);
      }
    }
    return Int32Array.from(known);
  }

  /** Further rows that are the same share all of their ids with the row before. */
  #addTimes({ ids, first, topK }: LayerPlace, layer: number, times: number): void {
    for (let k = 0; k < topK; k++) {
      const id = ids[first + k]!;
      if (id >= 0) this.#counts[layer * this.#room + id]! += times;
    }
    this.#overlap.add(layer, topK, times);
  }

  /** Where the number of experts is known, an id beyond it is an error. Where it is not, there may be more. */
  #makeRoom(id: number, entry: number, batch: RowBatch | null): void {
    const { numExperts, numLayers } = this.#options.shape;
    const most = numExperts ?? MOST_EXPERTS;
    if (id >= most) throw beyond(id, most, batch === null ? this.#waitingPlace : batch.placeOf(entry));
    const room = Math.min(MOST_EXPERTS, 2 ** Math.ceil(Math.log2(id + 1)));
    const counts = new Float64Array(numLayers * room);
    const words = new Int32Array(numLayers * room);
    for (let layer = 0; layer < numLayers; layer++) {
      const from = layer * this.#room;
      counts.set(this.#counts.subarray(from, from + this.#room), layer * room);
      words.set(this.#words.subarray(from, from + this.#room), layer * room);
    }
    this.windows.widen(this.#room, room);
    this.#counts = counts;
    this.#words = words;
    this.#room = room;
  }

  /** Adds the words to the counts, and numbers rows from 1 again: the row that was counted last. */
  #emptyWords(): void {
    const words = this.#words;
    const counts = this.#counts;
    for (let cell = 0; cell < words.length; cell++) {
      const word = words[cell]!;
      counts[cell]! += word >>> SEQUENCE_BITS;
      words[cell] = (word & SEQUENCE_MASK) === this.#sequence ? 1 : 0;
    }
    this.#sequence = 1;
  }
}

type LayerPlace = Readonly<{ ids: RowIds; first: number; topK: number }>;

/** An id has no word: nothing was counted. */
const NOT_COUNTED = -1;
/** Is added where an id stands twice. */
const REPEATED = 65_536;

/**
 * Counts the ids of one layer of a row into `words`, which begin at `base` and go up to id `limit`. Returns how many of
 * them the row before chose, too. It is all that runs for each id, and knows nothing else, so that it is compiled well.
 */
function countIds(
  words: Int32Array,
  base: number,
  limit: number,
  ids: RowIds,
  first: number,
  topK: number,
  before: number,
): number {
  // The sign of what is negative: an id, or what is left above it.
  let signs = 0;
  for (let k = 0; k < topK; k++) {
    const id = ids[first + k]!;
    signs |= id | (limit - id);
  }
  if (signs < 0) return NOT_COUNTED;
  const now = before + 1;
  const oneMore = now + 2 ** SEQUENCE_BITS;
  let common = 0;
  let twice = 0;
  for (let k = 0; k < topK; k++) {
    const cell = base + ids[first + k]!;
    const word = words[cell]!;
    const seen = word & SEQUENCE_MASK;
    if (seen === before) common++;
    else if (seen === now) twice = REPEATED;
    words[cell] = word - seen + oneMore;
  }
  return common + twice;
}

/** An id beyond the experts, perhaps of a slot: what the message says. */
function beyond(id: number, numExperts: number, place: string): RoutedExpertsError {
  const physical =
    id < 2 * numExperts
      ? '; with replicas of experts (EPLB) ids of slots go beyond the experts: map them to experts first'
      : '';
  return RoutedExpertsError.of('BAD_FILE', place, `id ${id}, ids are below ${numExperts}, the experts${physical}`);
}

function equal(a: RowIds, at: number, b: RowIds, other: number, width: number): boolean {
  for (let i = 0; i < width; i++) if (a[at + i] !== b[other + i]) return false;
  return true;
}

function isAll(ids: RowIds, at: number, length: number, value: number): boolean {
  for (let i = at; i < at + length; i++) if (ids[i] !== value) return false;
  return true;
}
