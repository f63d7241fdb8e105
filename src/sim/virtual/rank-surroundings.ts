/** What a rank in virtual time is told of: how long things take, and the ranks beside it. */

import type { HookPlace } from '../../worker/pipeline/dispatched-rows.ts';
import type { PendingMap } from '../../worker/pipeline/step-tasks.ts';
import type { Clock } from './event-heap.ts';

export type RankPass = Readonly<{ stage: number; numTokens: number; captureBytes: number }>;

/** What takes how long on a rank, in ticks. */
export interface RankDurations {
  readonly clock: Clock;
  /** A forward pass, or a stage's part of it, with its copies to the host. */
  pass(pass: RankPass): number;
  /** A copy to the host alone, which the worker waits for. */
  read(byteLength: number): number;
  /** From the end of a submission until its results can be read. */
  map(kind: PendingMap<never>['kind']): number;
  /** Between two steps of a worker. */
  host(): number;
}

/** Other ranks whose passes end with this one's. `goOn` is called later, never inside the call. */
export type RankLockstep = Readonly<{
  place: HookPlace;
  /** The rank comes to a pass; it goes on with the rows of each engine's pass. Absent: there are no other engines. */
  passComes?: (stepId: number, numRows: number, goOn: (rowsOfEngines: readonly number[]) => void) => void;
  passBegins: (stepId: number) => void;
  passEnded: (step: Readonly<{ stepId: number; numTokens: number }>, goOn: () => void) => void;
  stepEnded: (stepId: number) => void;
}>;
