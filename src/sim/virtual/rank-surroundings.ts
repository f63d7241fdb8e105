/** What a rank in virtual time is given of its surroundings: durations, other ranks, tasks that are no steps. */

import type { HookPlace } from '../../worker/pipeline/dispatched-rows.ts';
import type { PendingMap } from '../../worker/pipeline/step-tasks.ts';
import type { Clock } from './event-heap.ts';

/** `captureBytes`: that it copies to the host. */
export type PassSize = Readonly<{ stage: number; numTokens: number; captureBytes: number }>;

/** What takes how long on a rank, in ticks. */
export interface RankDurations {
  readonly clock: Clock;
  /** A forward pass with its copies to the host. */
  pass(pass: PassSize): number;
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

/** KV on its way off the device or onto it, in turn with the steps. Keys are `[blockIds.length, blockSize, 2]` u32. */
export type KvTask = Readonly<{ blockIds: Uint32Array }> &
  /** `rank`: the rank to read. All ranks have the same KV. */
  (
    | Readonly<{ kind: 'read-kv'; rank: number; onExecuted: () => void; onRead: (keys: Uint32Array) => void }>
    /**
     * `onExecuted`: on rank 0; `onWritten`: it is behind every step before and ahead of every step to come, on this
     * rank.
     */
    | Readonly<{ kind: 'write-kv'; keys: Uint32Array; onExecuted: () => void; onWritten: () => void }>
  );
