/** Whole rows that are equal: what a profiling pass, or padding, leaves. */

import type { Capture } from '../../rows/captures/capture.ts';
import { rowWidth } from '../../rows/captures/capture.ts';

export type Repeats = Readonly<{
  rows: number;
  distinctRows: number;
  /** The first of equals. */
  mostCommon: Readonly<{ count: number; firstRow: number }>;
  /** Equal rows that follow one another. */
  longestRun: Readonly<{ start: number; length: number }>;
}>;

/** Holds a key of each distinct row: for rows that fit in memory. */
export function repeatsOf(capture: Capture, from: number = 0): Repeats {
  const { ids, numRows } = capture;
  const width = rowWidth(capture);
  const found = new Map<string, { count: number; firstRow: number }>();
  let mostCommon = { count: 0, firstRow: 0 };
  let longestRun = { start: 0, length: 0 };
  let run = { start: 0, length: 0 };
  let before = '';
  for (let row = 0; row < numRows - from; row++) {
    const at = (from + row) * width;
    const key = ids.subarray(at, at + width).join();
    const entry = found.get(key) ?? { count: 0, firstRow: row };
    entry.count++;
    found.set(key, entry);
    const isMore = entry.count - mostCommon.count || mostCommon.firstRow - entry.firstRow;
    if (isMore > 0) mostCommon = { ...entry };
    run = row > 0 && key === before ? { ...run, length: run.length + 1 } : { start: row, length: 1 };
    if (run.length > longestRun.length) longestRun = run;
    before = key;
  }
  return { rows: numRows - from, distinctRows: found.size, mostCommon, longestRun };
}
