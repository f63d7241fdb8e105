/** How the slowest of N grows with N, as a figure of a terminal. */

import type { ClusterFigures, Slowest } from './cluster-figures.ts';

const WIDTH = 60;

type Line = Readonly<{ mark: string; of: (slowest: Slowest) => number; name: string }>;

/** A later one hides an earlier one. */
const LINES: readonly Line[] = [
  { mark: 'd', of: ({ drawn }) => drawn.mean, name: 'mean of the slowest, were passes drawn one by one' },
  { mark: 'P', of: ({ slowest }) => slowest.p99, name: 'p99 of the slowest' },
  { mark: 'M', of: ({ slowest }) => slowest.mean, name: 'mean of the slowest' },
  { mark: 's', of: ({ single }) => single.mean, name: 'mean of a single rank' },
];

/** A line for each size, ms from left to right. Empty where nothing was counted. */
export function scaleFigure(figures: readonly ClusterFigures[]): string {
  const known = figures.filter(({ slowest }) => slowest !== null);
  const values = known.flatMap(({ slowest }) => LINES.map(({ of }) => of(slowest!)));
  const [from, to] = [Math.floor(Math.min(...values)), Math.ceil(Math.max(...values))];
  if (known.length === 0) return '';
  const placeOf = (ms: number): number => Math.round(((ms - from) / Math.max(1, to - from)) * (WIDTH - 1));
  const rows = known.map(({ numRanks, slowest }) => {
    const marks = Array.from({ length: WIDTH }, () => ' ');
    for (const { mark, of } of LINES) marks[placeOf(of(slowest!))] = mark;
    return `${String(numRanks).padStart(6)} │${marks.join('').trimEnd()}`;
  });
  const axis = `${' '.repeat(6)} └${'─'.repeat(WIDTH)}`;
  const ends = `${' '.repeat(7)} ${from} ms${`${to} ms`.padStart(WIDTH - `${from} ms`.length)}`;
  const names = LINES.toReversed().map(({ mark, name }) => `${' '.repeat(8)}${mark}  ${name}`);
  return [' ranks', ...rows, axis, ends, ...names].join('\n');
}
