/** Disturbances that show in how many rows a request has, and in which of them are routings. */

import type { Agreement } from './agreement.ts';
import { setShare } from './agreement.ts';
import { rowAgreement } from './alignment.ts';
import type { RequestRows, RowSet } from './row-set.ts';
import { isRouting, sameRow } from './row-set.ts';
import type { Verdict } from './verdict.ts';
import { count, verdict } from './verdict.ts';

/** Agreement from which on rows count as the same rows. */
const SAME = 0.9;

/** The rows `[from, to)` of a request that are routings, if these are one range with padding around it. */
type Extent = Readonly<{ from: number; to: number }>;

function extentOf(set: RowSet, request: RequestRows): Extent {
  let from = 0;
  let to = request.numRows;
  while (from < to && !isRouting(set, request, from)) from++;
  while (to > from && !isRouting(set, request, to - 1)) to--;
  return { from, to };
}

/** `null`: every request has as many rows in B as in A, and as many that are routings. */
export function lengthVerdict(a: RowSet, b: RowSet, agreement: Agreement): Verdict | null {
  if (b.requests.length < a.requests.length) {
    const missing = a.requests.length - b.requests.length;
    return verdict('requests-missing', `B lacks ${count(missing, 'request')} of A`);
  }
  const extents = a.requests.map((request, r) => ({
    r,
    a: extentOf(a, request),
    b: extentOf(b, b.requests[r]!),
    numA: request.numRows,
    numB: b.requests[r]!.numRows,
  }));
  const isSame = extents.every((e) => e.numA === e.numB && e.a.from === e.b.from && e.a.to === e.b.to);
  if (isSame) return null;
  const sizeA = (e: (typeof extents)[number]): number => e.a.to - e.a.from;
  const sizeB = (e: (typeof extents)[number]): number => e.b.to - e.b.from;
  const alignedAt = (shift: (e: (typeof extents)[number]) => number): boolean =>
    extents.every((e) => isAligned(a, b, e.r, e.a, shift(e)));

  if (extents.every((e) => sizeA(e) === sizeB(e)) && alignedAt((e) => e.b.from - e.a.from)) {
    const padding = extents.reduce((sum, e) => sum + e.numB - sizeB(e), 0);
    const isFront = extents.some((e) => e.b.from > e.a.from);
    const where = isFront ? 'in front of' : 'behind';
    return verdict('padding-counted', `B is A with ${count(padding, 'row')} of padding ${where} its rows`);
  }
  if (extents.every((e) => sizeB(e) === sizeA(e) + 1 && isRepeated(b, e.r, e.b.to - 1)) && alignedAt((e) => e.b.from)) {
    return verdict('last-row-repeated', 'B is A with the last row of each request repeated: that token has no row');
  }
  if (extents.every((e) => sizeB(e) <= sizeA(e)) && extents.some((e) => sizeB(e) < sizeA(e))) {
    return partVerdict(a, b, extents) ?? null;
  }
  if (extents.every((e) => sizeB(e) >= sizeA(e)) && setShare(agreement) >= SAME) {
    const extra = extents.reduce((sum, e) => sum + sizeB(e) - sizeA(e), 0);
    const isConstant = extents.every((e) => isConstantFrom(b, e.r, e.b.from + sizeA(e), e.b.to));
    if (isConstant) {
      return verdict('padding-counted', `B is A with ${count(extra, 'row')} of padding behind its rows, all alike`);
    }
    return verdict('extra-rows', `B is A with ${count(extra, 'row')} more, behind its rows`);
  }
  return null;
}

type Lengths = Readonly<{ r: number; a: Extent; b: Extent; numA: number; numB: number }>;

/** B has a part of A's rows: the first ones, the last ones, or those around a gap. */
function partVerdict(a: RowSet, b: RowSet, extents: readonly Lengths[]): Verdict | null {
  const sizeB = (e: Lengths): number => e.b.to - e.b.from;
  const missing = extents.reduce((sum, e) => sum + e.a.to - e.a.from - sizeB(e), 0);
  const prompts = extents.map((e) => a.requests[e.r]!.promptLen);
  const parted = (place: (e: Lengths) => Readonly<{ from: number; row: number }>): boolean =>
    extents.every((e) => {
      const { from, row } = place(e);
      // Rows that moved within as many rows are shifted, not left out.
      if (e.numA === e.numB && row !== from) return false;
      return isAligned(a, b, e.r, { from, to: from + sizeB(e) }, row - from);
    });
  if (parted((e) => ({ from: e.a.from, row: e.b.from })) && extents.every((e) => sizeB(e) > 0)) {
    const isPrompt = prompts.every((length, i) => length === null || length === sizeB(extents[i]!));
    if (isPrompt) {
      const known = prompts.some((length) => length !== null) ? '' : ', as far as their number says';
      return verdict('prompt-only', `B has the rows of the prompt only${known}: ${missing} rows of the output lack`);
    }
    const words = `B ends early: it has the first rows of each request, and ${missing} rows lack behind them`;
    return verdict('rows-missing', words);
  }
  if (parted((e) => ({ from: e.a.to - sizeB(e), row: e.b.from })) && extents.every((e) => sizeB(e) > 0)) {
    const isOutput = prompts.every((length, i) => length === null || length === extents[i]!.a.to - sizeB(extents[i]!));
    if (isOutput)
      return verdict('output-only', `B has the rows of the output only: ${missing} rows of the prompt lack`);
    return verdict(
      'rows-missing',
      `B begins late: it has the last rows of each request, and ${missing} lack before them`,
    );
  }
  return null;
}

/** Whether the rows `[from, to)` of A's request stand in B, so many rows further on. */
function isAligned(a: RowSet, b: RowSet, request: number, { from, to }: Extent, shift: number): boolean {
  let sum = 0;
  for (let row = from; row < to; row++) sum += rowAgreement(a, b, request, row, row + shift);
  return sum >= SAME * (to - from);
}

function isRepeated(b: RowSet, request: number, row: number): boolean {
  const rows = b.requests[request]!;
  return row > 0 && sameRow(b.numLayers * b.topK, rows, row, rows, row - 1);
}

function isConstantFrom(b: RowSet, request: number, from: number, to: number): boolean {
  for (let row = from + 1; row < to; row++) if (!isRepeated(b, request, row)) return false;
  return to - from > 1;
}

/** B has as many rows as A, and in each request the last one is the one before it, where A has another. */
export function repeatedInPlace(a: RowSet, b: RowSet): Verdict | null {
  const width = a.numLayers * a.topK;
  const isIt = a.requests.every((request, r) => {
    const last = request.numRows - 1;
    const other = b.requests[r]!;
    if (last < 1 || !isRepeated(b, r, last) || sameRow(width, request, last, other, last)) return false;
    return isAligned(a, b, r, { from: 0, to: last }, 0);
  });
  if (!isIt) return null;
  return verdict(
    'last-row-repeated',
    'the last row of each request of B repeats the row before it: its own is not there',
  );
}
