/** Where a world's engine stands: on which side of a hand-over, and among which other engines. */

import type { FinishReason } from '../contract/engine-core-output.ts';
import type { KvConnector } from '../contract/kv-connector.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import type { EndedRequests } from './laws/ended-requests.ts';
import type { ScenarioRequest } from './scenario.ts';
import type { VirtualLock } from './virtual/virtual-lock.ts';

export type EngineSide = Readonly<{
  /** Before each line of its report. */
  prefix: string;
  /** Added to a step's number it gives the epoch of its pass: no two engines share an epoch. */
  firstEpoch: number;
  connector: KvConnector | null;
  /** Loaded KV comes without rows, which are spliced later: rows of loaded positions are to be missing. */
  rowsAreSpliced: boolean;
  /** A request ended or was refused; `rows` are those that were handed out. */
  onEnd: ((spec: ScenarioRequest, finish: FinishReason | 'refused', rows: readonly RoutedRows[]) => void) | null;
  /** The lock of `shm-flock`; absent: one of the world's own, which takes no time. */
  lock?: VirtualLock;
  /** Ended requests are forgotten once no step in flight runs them: for long runs whose consumers read at once. */
  ended?: EndedRequests;
}>;

export const ALONE: EngineSide = { prefix: '', firstEpoch: 1, connector: null, rowsAreSpliced: false, onEnd: null };
