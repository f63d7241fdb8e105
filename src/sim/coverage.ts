/** The rare paths that a campaign must have been on to be worth anything. */

export const MARKS = [
  'stale output after preemption',
  'same-step prefix hit',
  'abort between execute and update',
  'ring full',
  'respawn mid-prefill',
  'spec rejection across a block boundary',
  'last-token recompute on a full hit',
  'stale output dropped by a cache reset',
  'request refused',
  'rows of a worker order unlike the scheduler’s',
  'abort while waiting',
  'stopped by a token',
  'worker lost for good',
] as const;

export type Mark = (typeof MARKS)[number];

/** Those that every campaign must reach in at least `REQUIRED_SHARE` of its seeds. */
export const REQUIRED_MARKS: readonly Mark[] = MARKS.slice(0, 7);
export const REQUIRED_SHARE = 0.005;

/** How many scenarios went where. */
export class Coverage {
  readonly counts: Record<Mark, number> = Object.fromEntries(MARKS.map((mark) => [mark, 0])) as Record<Mark, number>;

  add(marks: ReadonlySet<Mark>): void {
    for (const mark of marks) this.counts[mark] += 1;
  }

  merge(counts: Readonly<Record<Mark, number>>): void {
    for (const mark of MARKS) this.counts[mark] += counts[mark];
  }
}
