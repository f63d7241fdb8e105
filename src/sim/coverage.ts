/** The rare paths that a campaign must take often enough for its result to count. */

import { designs } from '../capture/designs.ts';

/** Paths of one engine, each with the least share of the scenarios that must take it. */
const ENGINE_MARKS = {
  'stale output after preemption': 0.01,
  'same-step prefix hit': 0.005,
  'abort between execute and update': 0.02,
  'ring full': 0.02,
  'respawn mid-prefill': 0.005,
  'spec rejection across a block boundary': 0.02,
  'last-token recompute on a full hit': 0.005,
  'stale output dropped by a cache reset': 0.01,
  'request refused': 0.02,
  'rows of a worker order unlike the scheduler’s': 0.02,
  'abort while waiting': 0.01,
  'stopped by a token': 0.05,
  'worker lost for good': 0.001,
  'withdrawn from the step being planned': 0.005,
  'preempted again while dropped output is on its way': 0.0005,
  'drafts cut by the model length': 0.01,
  'drafts verified after a step without the request': 0.005,
} as const;

/** Paths of the proxy between two engines, whatever the design. */
const PROXY_MARKS = {
  'answer of the prefill engine lost': 0.02,
  'proxy gave up on the prefill engine': 0.05,
} as const;

/** Paths that need a prefill engine in front. */
const HANDOVER_MARKS = {
  'KV loaded': 0.05,
  'KV loaded for a request that wants rows': 0.05,
  'KV loaded behind a cached prefix': 0.01,
  'all but the last prompt token loaded': 0.05,
  'blocks with loaded KV hit by another request': 0.005,
  'load failed and computed again': 0.05,
  'load failed and ended its request': 0.05,
  'late KV that nobody waits for': 0.05,
  'lease over before the KV was read': 0.05,
  'aborted while its KV was loaded': 0.003,
  'preempted after its KV was loaded': 0.005,
  'loaded KV given back': 0.003,
  'KV read from another rank than the first': 0.005,
  'kept blocks released before they were read': 0.01,
  'prefill workers lost in the middle of a read': 0.0005,
  'decode workers lost in the middle of a load': 0.0005,
} as const;

/** Paths that need a pipeline of stages. */
const STAGE_MARKS = {
  'stages at work on different steps': 0.2,
  'hidden states before their step': 0.02,
  'outputs in another order than the ranks': 0.05,
  'a stage without a router': 0.1,
  'a stage behind the first lost': 0.02,
  'workers lost between stages': 0.01,
} as const;

/** Paths of drafts and of asynchronous scheduling, neither of which there is with stages. */
const NEVER_STAGED: readonly Mark[] = [
  'spec rejection across a block boundary',
  'drafts cut by the model length',
  'drafts verified after a step without the request',
];

/** Paths that need KV outside the device, whatever the design. */
const OFFLOAD_MARKS = {
  'block kept outside the device': 0.2,
  'evicted block not kept': 0.02,
  'file of a block not written': 0.01,
  'cache reset with blocks outside the device': 0.02,
  'cache reset with copies under way': 0.001,
  'workers lost while blocks were saved': 0.001,
} as const;

/** Those for which blocks must come back. */
const TIER_HIT_MARKS = {
  'block loaded back': 0.1,
  'block loaded back for a request that wants rows': 0.03,
  'preempted request loads its blocks back': 0.01,
  'block found while it was on its way': 0.01,
  'block read from a file': 0.01,
  'file of a block not believed': 0.005,
  'blocks did not come back and were computed again': 0.01,
  'aborted while its blocks came back': 0.002,
  'workers lost while blocks came back': 0.001,
} as const;

/** Those of a design that keeps rows with blocks. */
const TIER_ROWS_MARKS = { 'rows under way when their block was evicted': 0.005 } as const;

export type Mark =
  | keyof typeof ENGINE_MARKS
  | keyof typeof PROXY_MARKS
  | keyof typeof HANDOVER_MARKS
  | keyof typeof OFFLOAD_MARKS
  | keyof typeof TIER_HIT_MARKS
  | keyof typeof TIER_ROWS_MARKS
  | keyof typeof STAGE_MARKS;

const LEAST_SHARES: Readonly<Record<Mark, number>> = {
  ...ENGINE_MARKS,
  ...PROXY_MARKS,
  ...HANDOVER_MARKS,
  ...OFFLOAD_MARKS,
  ...TIER_HIT_MARKS,
  ...TIER_ROWS_MARKS,
  ...STAGE_MARKS,
};
export const ALL_MARKS = Object.keys(LEAST_SHARES) as readonly Mark[];
const namesOf = (marks: Readonly<Partial<Record<Mark, number>>>): readonly Mark[] => Object.keys(marks) as Mark[];
const handoverMarks = namesOf(HANDOVER_MARKS);
const tierHitMarks = namesOf(TIER_HIT_MARKS);
const tierRowsMarks = namesOf(TIER_ROWS_MARKS);

/** Tested designs by their names; what stands for `deltas` holds for each of its policies. */
const CLOSED_MARKS: Readonly<Record<string, readonly Mark[]>> = {
  off: tierRowsMarks,
  // A design that blocks has one step on the device and never fills the ring; it takes over no KV of other engines.
  'shm-flock': ['ring full', ...handoverMarks, ...tierRowsMarks],
  'host-cache': ['KV loaded for a request that wants rows', ...tierRowsMarks],
  'slot-store': [...handoverMarks, ...tierRowsMarks],
  // Rows of all requests lie with the worker, and none of them comes from elsewhere.
  'block-store': [...handoverMarks, ...tierHitMarks, ...tierRowsMarks],
  'deltas/recompute': tierRowsMarks,
  'deltas/computed-only': tierRowsMarks,
};

/** Paths that a tested design cannot take; of one of the caller's own, those that it may be unable to take. */
export function closedMarks(tested: string): readonly Mark[] {
  const [design, policy] = tested.split('/');
  if (!Object.hasOwn(designs, design!)) return ['ring full', ...handoverMarks, ...tierHitMarks, ...tierRowsMarks];
  return [...(CLOSED_MARKS[design!] ?? []), ...(policy === undefined ? [] : (CLOSED_MARKS[tested] ?? []))];
}

/** From this many scenarios on, a campaign tells every share from chance. */
export const COVERAGE_SCENARIOS = 2000;

/** A path that too few scenarios took. */
export type RareMark = Readonly<{ mark: Mark; count: number; due: number }>;

export type MarkCounts = Readonly<Record<Mark, number>>;

/** What storms have beside one engine: a prefill engine in front, KV that is kept outside the device, or stages. */
export type Beside = Readonly<{
  pd?: boolean | undefined;
  offload?: boolean | undefined;
  pipeline?: boolean | undefined;
}>;

/** Returns the marks that a campaign can reach. */
export function marksOf({ pd = false, offload = false, pipeline = false }: Beside): readonly Mark[] {
  return [
    ...namesOf(ENGINE_MARKS).filter((mark) => !(pipeline && NEVER_STAGED.includes(mark))),
    ...(pipeline ? namesOf(STAGE_MARKS) : []),
    ...(pd ? [...namesOf(PROXY_MARKS), ...handoverMarks] : []),
    ...(offload ? [...namesOf(OFFLOAD_MARKS), ...tierHitMarks, ...tierRowsMarks] : []),
  ];
}

/** Returns the paths that a campaign over `scenarios` storms of a tested design should have taken more often. */
export function rareMarks(campaign: {
  tested: string;
  beside: Beside;
  scenarios: number;
  counts: MarkCounts;
}): RareMark[] {
  const { tested, beside, scenarios, counts } = campaign;
  const closed = closedMarks(tested);
  return marksOf(beside)
    .filter((mark) => !closed.includes(mark))
    .map((mark) => ({ mark, count: counts[mark], due: Math.floor(scenarios * LEAST_SHARES[mark]) }))
    .filter(({ count, due }) => count < due);
}

/** Counts how many scenarios took each path. */
export class Coverage {
  readonly counts: Record<Mark, number> = Object.fromEntries(ALL_MARKS.map((mark) => [mark, 0])) as Record<
    Mark,
    number
  >;

  add(marks: ReadonlySet<Mark>): void {
    for (const mark of marks) this.counts[mark] += 1;
  }

  merge(counts: MarkCounts): void {
    for (const mark of ALL_MARKS) this.counts[mark] += counts[mark];
  }
}
