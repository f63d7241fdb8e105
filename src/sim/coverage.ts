/** The rare paths that a campaign must take often enough for its result to count. */

import { designs } from '../capture/designs.ts';
import type { DesignName } from '../contract/config.ts';

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

export type Mark =
  keyof typeof ENGINE_MARKS | keyof typeof PROXY_MARKS | keyof typeof HANDOVER_MARKS | keyof typeof STAGE_MARKS;

const LEAST_SHARES: Readonly<Record<Mark, number>> = {
  ...ENGINE_MARKS,
  ...PROXY_MARKS,
  ...HANDOVER_MARKS,
  ...STAGE_MARKS,
};
export const ALL_MARKS = Object.keys(LEAST_SHARES) as readonly Mark[];
const handoverMarks = Object.keys(HANDOVER_MARKS) as readonly Mark[];

const CLOSED_MARKS: Readonly<Partial<Record<DesignName, readonly Mark[]>>> = {
  // A design that blocks has one step on the device and never fills the ring; it takes over no KV.
  'shm-flock': ['ring full', ...handoverMarks],
  'host-cache': ['KV loaded for a request that wants rows'],
  'slot-store': handoverMarks,
  'block-store': handoverMarks,
};

/** Paths that a design cannot take; of one of the caller's own, those that it may be unable to take. */
export function closedMarks(design: string): readonly Mark[] {
  if (!Object.hasOwn(designs, design)) return ['ring full', ...handoverMarks];
  return CLOSED_MARKS[design as DesignName] ?? [];
}

/** From this many scenarios on, a campaign tells every share from chance. */
export const COVERAGE_SCENARIOS = 2000;

/** A path that too few scenarios took. */
export type RareMark = Readonly<{ mark: Mark; count: number; due: number }>;

export type MarkCounts = Readonly<Record<Mark, number>>;

/** What storms have around the engine: a prefill engine in front, or stages of a pipeline. */
export type StormKind = Readonly<{ pd?: boolean | undefined; pipeline?: boolean | undefined }>;

/** Returns the marks that a campaign can reach. */
export function marksOf({ pd = false, pipeline = false }: StormKind): readonly Mark[] {
  const ofEngine = Object.keys(ENGINE_MARKS) as readonly Mark[];
  if (pipeline) {
    return [...ofEngine.filter((mark) => !NEVER_STAGED.includes(mark)), ...(Object.keys(STAGE_MARKS) as Mark[])];
  }
  return pd ? [...ofEngine, ...(Object.keys(PROXY_MARKS) as Mark[]), ...handoverMarks] : ofEngine;
}

/** Returns the paths that a campaign over `scenarios` storms of a design should have taken more often. */
export function rareMarks(
  campaign: StormKind & Readonly<{ design: string; scenarios: number; counts: MarkCounts }>,
): RareMark[] {
  const { design, scenarios, counts } = campaign;
  const closed = closedMarks(design);
  return marksOf(campaign)
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
