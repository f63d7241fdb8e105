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

/** With a prefill engine in front. */
export const PD_MARKS = [
  'KV loaded',
  'KV loaded for a request that wants rows',
  'KV loaded behind a cached prefix',
  'all but the last prompt token loaded',
  'blocks with loaded KV hit by another request',
  'load failed and computed again',
  'load failed and ended its request',
  'late KV that nobody waits for',
  'lease over before the KV was read',
  'aborted while its KV was loaded',
  'preempted after its KV was loaded',
  'loaded KV given back',
  'answer of the prefill engine lost',
  'proxy gave up on the prefill engine',
  'KV read from another rank than the first',
  'kept blocks released before they were read',
  'prefill workers lost in the middle of a read',
  'decode workers lost in the middle of a load',
] as const;

export type Mark = (typeof MARKS)[number] | (typeof PD_MARKS)[number];

export const ALL_MARKS: readonly Mark[] = [...MARKS, ...PD_MARKS];

/** Those that every campaign must reach in at least `REQUIRED_SHARE` of its seeds. */
export const REQUIRED_MARKS: readonly Mark[] = MARKS.slice(0, 7);
/** Those that a campaign with a prefill engine must reach as often. */
export const REQUIRED_PD_MARKS: readonly Mark[] = PD_MARKS.slice(0, 16);
export const REQUIRED_SHARE = 0.005;

/** How many scenarios went where. */
export class Coverage {
  readonly counts: Record<Mark, number> = Object.fromEntries(ALL_MARKS.map((mark) => [mark, 0])) as Record<
    Mark,
    number
  >;

  add(marks: ReadonlySet<Mark>): void {
    for (const mark of marks) this.counts[mark] += 1;
  }

  merge(counts: Readonly<Record<Mark, number>>): void {
    for (const mark of ALL_MARKS) this.counts[mark] += counts[mark];
  }
}
