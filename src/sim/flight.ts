/** A step in flight, as the simulator follows it. */

import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import { RequestKind, type SchedulerOutput } from '../contract/scheduler-output.ts';
import type { TrackedRequest } from './laws/tracked-request.ts';

/** One request of a step. */
export type FlightEntry = {
  readonly request: TrackedRequest;
  /** For a joining request: its block table, and how many of its tokens were cached. */
  readonly blocks: readonly number[];
  readonly numHits: number;
  /** Tokens that the device sampled for the request. */
  sampled: readonly number[];
  /** The positions that the step computed, without rejected drafts. */
  from: number;
  to: number;
  /** The request lost its KV meanwhile. */
  isStale: boolean;
  /** A cache reset took the KV: the request's part of the output is thrown away. */
  isDropped: boolean;
};

export type Flight = {
  readonly stepId: number;
  /** The engine's own object: valid until the step is finished. */
  readonly plan: SchedulerOutput;
  readonly epoch: number;
  readonly entries: readonly FlightEntry[];
  /** Tokens of requests that opted in, drafts included: the most rows that may leave the device (L5). */
  readonly numWantedTokens: number;
  /** Its forward pass has run (on rank 0, or the first of the last stage). */
  isExecuted: boolean;
  /** Per rank; absent until it has arrived. */
  readonly outputs: (ModelRunnerOutput | undefined)[];
  /** What the engine is given, once all have arrived. */
  joined: ModelRunnerOutput | null;
  numArrived: number;
};

const KIND_NAMES = { [RequestKind.running]: 'runs', [RequestKind.new]: 'joins', [RequestKind.resumed]: 'resumes' };

/** Says the plan of a step in words. `requests`: all of the run, by their index. */
export function describePlan({ plan, entries }: Flight, requests: readonly TrackedRequest[]): string {
  const parts = entries.map(({ request }, i) => {
    const from = plan.numComputedTokens[i]!;
    const to = from + plan.numScheduledTokens[i]!;
    const drafts = plan.draftOffsets[i + 1]! - plan.draftOffsets[i]!;
    const blocks = plan.newBlockIds.subarray(plan.newBlockOffsets[i], plan.newBlockOffsets[i + 1]);
    const kind = KIND_NAMES[plan.kinds[i] as 0 | 1 | 2];
    const withDrafts = drafts > 0 ? ` with ${drafts} drafts` : '';
    const newBlocks = blocks.length > 0 ? ` blocks +${[...blocks]}` : '';
    return `${request.name} ${kind} [${from}, ${to})${withDrafts}${newBlocks}`;
  });
  const names = (indices: readonly number[]): string => indices.map((i) => requests[i]!.name).join(', ');
  if (plan.preemptedIndices.length > 0) parts.push(`preempted: ${names(plan.preemptedIndices)}`);
  if (plan.finishedIndices.length > 0) parts.push(`over: ${names(plan.finishedIndices)}`);
  return `step ${plan.stepId} is begun: ${parts.join('; ')}`;
}
