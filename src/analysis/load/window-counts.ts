/**
 * Counts over windows of rows, and after 1, 2, 4, … rows, of a stream whose length nobody knows. Windows are a few
 * dozen: when there are more, two become one.
 */

import { byValueDescending, quotient } from '../statistics.ts';

/** Experts without a selection in the first rows, per layer. */
export type DeadAfter = Readonly<{ rows: number; dead: readonly number[] }>;

/** How much the distribution over experts changes from one window to the next. `null`: fewer than two windows. */
export type Drift = Readonly<{
  numWindows: number;
  windowRows: number;
  /** Mean total variation distance ½ Σ |p − q| of neighbouring windows. */
  distance: number | null;
  /** What windows of this size differ by if nothing changes. */
  chance: number | null;
  /** Mean share of a window's ⌊E/8⌋ busiest experts that are among the next one's. By chance ⌊E/8⌋/E. */
  hotOverlap: number | null;
}>;

const MOST_WINDOWS = 32;
const FIRST_WINDOW_ROWS = 256;

type Snapshot = Readonly<{ rows: number; counts: Float64Array }>;

export class WindowCounts {
  readonly #numLayers: number;
  #numRows = 0;
  #windowRows = FIRST_WINDOW_ROWS;
  #nextWindow = FIRST_WINDOW_ROWS;
  /** Sums from the beginning. */
  #snapshots: Snapshot[] = [];
  #nextPower = 1;
  readonly #deadAfter: { rows: number; present: Uint8Array; room: number }[] = [];

  constructor(numLayers: number) {
    this.#numLayers = numLayers;
  }

  get numRows(): number {
    return this.#numRows;
  }

  /** Whether counts are looked at when so many rows are added. */
  isDue(numRows: number): boolean {
    return this.#numRows + numRows >= Math.min(this.#nextPower, this.#nextWindow);
  }

  /** `counts`: `[L][room]`; with the rows in it where they are due. */
  add(numRows: number, counts: Float64Array, room: number): void {
    this.#numRows += numRows;
    if (this.#numRows >= this.#nextPower) this.#notePresent(counts, room);
    if (this.#numRows >= this.#nextWindow) this.#takeSnapshot(counts);
  }

  end(counts: Float64Array, room: number): void {
    if (this.#numRows > (this.#deadAfter.at(-1)?.rows ?? 0)) this.#notePresent(counts, room);
  }

  /** There is room for more experts from here on. */
  widen(from: number, to: number): void {
    this.#snapshots = this.#snapshots.map(({ rows, counts }) => {
      const wide = new Float64Array(this.#numLayers * to);
      for (let layer = 0; layer < this.#numLayers; layer++) {
        wide.set(counts.subarray(layer * from, (layer + 1) * from), layer * to);
      }
      return { rows, counts: wide };
    });
  }

  deadAfter(numExperts: number): DeadAfter[] {
    return this.#deadAfter.map(({ rows, present, room }) => ({
      rows,
      dead: Array.from({ length: this.#numLayers }, (_, layer) => {
        const own = present.subarray(layer * room, layer * room + Math.min(room, numExperts));
        return numExperts - own.reduce((sum, seen) => sum + seen, 0);
      }),
    }));
  }

  /** Of one layer. */
  drift(layer: number, numExperts: number): Drift {
    const windows = this.#windows(layer, numExperts);
    const hotSize = Math.max(1, Math.floor(numExperts / 8));
    let distance = 0;
    let chance = 0;
    let hot = 0;
    for (let w = 1; w < windows.length; w++) {
      const [a, b] = [windows[w - 1]!, windows[w]!];
      distance += distanceOf(a, b);
      chance += chanceOf(a, b);
      const busy = new Set(byValueDescending(b.counts).slice(0, hotSize));
      const kept = byValueDescending(a.counts).slice(0, hotSize);
      hot += kept.filter((e) => busy.has(e)).length / hotSize;
    }
    const pairs = Math.max(0, windows.length - 1);
    return {
      numWindows: windows.length,
      windowRows: this.#windowRows,
      distance: quotient(distance, pairs),
      chance: quotient(chance, pairs),
      hotOverlap: quotient(hot, pairs),
    };
  }

  #windows(layer: number, numExperts: number): Window[] {
    const windows: Window[] = [];
    let before: Float64Array | null = null;
    for (const { counts } of this.#snapshots) {
      const room = counts.length / this.#numLayers;
      const own: Float64Array = counts.slice(layer * room, layer * room + numExperts);
      const earlier = before;
      const change = earlier === null ? own : own.map((count, e) => count - earlier[e]!);
      windows.push({ counts: change, total: change.reduce((sum, count) => sum + count, 0) });
      before = own;
    }
    return windows.filter(({ total }) => total > 0);
  }

  #takeSnapshot(counts: Float64Array): void {
    this.#snapshots.push({ rows: this.#numRows, counts: counts.slice() });
    if (this.#snapshots.length === MOST_WINDOWS) {
      this.#snapshots = this.#snapshots.filter((_, i) => i % 2 === 1);
      this.#windowRows *= 2;
    }
    this.#nextWindow = this.#numRows + this.#windowRows;
  }

  #notePresent(counts: Float64Array, room: number): void {
    this.#deadAfter.push({ rows: this.#numRows, present: Uint8Array.from(counts, (count) => Number(count > 0)), room });
    while (this.#nextPower <= this.#numRows) this.#nextPower *= 2;
  }
}

type Window = Readonly<{ counts: Float64Array; total: number }>;

function distanceOf(a: Window, b: Window): number {
  return a.counts.reduce((sum, count, e) => sum + Math.abs(count / a.total - b.counts[e]! / b.total), 0) / 2;
}

/** Two samples of one distribution: each share differs by a normal deviate with variance p(1 − p)(1/n + 1/m). */
function chanceOf(a: Window, b: Window): number {
  const spread = 1 / a.total + 1 / b.total;
  const deviations = a.counts.reduce((sum, count, e) => {
    const p = (count + b.counts[e]!) / (a.total + b.total);
    return sum + Math.sqrt(p * (1 - p) * spread);
  }, 0);
  return deviations / Math.sqrt(2 * Math.PI);
}
