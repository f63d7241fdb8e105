/** A step in flight, as the simulator follows it. */

import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
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
  /** Its forward pass has run (on rank 0). */
  isExecuted: boolean;
  /** Per rank; `null` until it has arrived. */
  readonly outputs: (ModelRunnerOutput | null)[];
  numArrived: number;
};
