/** A part of a capture: some of its passes, or some of its requests. */

import type { Capture } from './capture.ts';
import { rowWidth } from './capture.ts';

/** Passes `[from, to)` of a capture whose passes stand one after the other in its rows. */
export function passesOf(capture: Capture, from: number, to: number): Capture {
  const steps = (capture.steps ?? []).slice(from, to);
  const first = steps[0]?.[0]?.[0] ?? 0;
  const last = steps.at(-1)?.at(-1) ?? [first, 0];
  const numRows = last[0] + last[1] - first;
  return {
    ...capture,
    ...rowsOf(capture, first, numRows),
    requests: [{ ...capture.requests[0]!, firstRow: 0, numRows }],
    steps: steps.map((step) => step.map(([row, count]) => [row - first, count] as const)),
  };
}

/** Requests `[from, to)`; passes are then unknown. */
export function requestsOf(capture: Capture, from: number, to: number): Capture {
  const requests = capture.requests.slice(from, to);
  const first = requests[0]?.firstRow ?? 0;
  const numRows = requests.reduce((sum, request) => sum + request.numRows, 0);
  return {
    ...capture,
    ...rowsOf(capture, first, numRows),
    requests: requests.map((request) => ({ ...request, firstRow: request.firstRow - first })),
    steps: null,
  };
}

/** Passes in which every request computes its next row. For captures that know no passes. */
export function positionsAsPasses(capture: Capture): Capture {
  const longest = capture.requests.reduce((most, { numRows }) => Math.max(most, numRows), 0);
  const steps = Array.from({ length: longest }, (_, position) =>
    capture.requests
      .filter(({ numRows }) => position < numRows)
      .map(({ firstRow }) => [firstRow + position, 1] as const),
  );
  return { ...capture, steps };
}

function rowsOf(capture: Capture, first: number, numRows: number): Pick<Capture, 'ids' | 'numRows'> {
  const width = rowWidth(capture);
  return { ids: capture.ids.subarray(first * width, (first + numRows) * width), numRows };
}
