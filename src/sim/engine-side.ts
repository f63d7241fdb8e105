/** Which side of a hand-over a world's engine is on: prefill, decode, or neither. */

import type { FinishReason } from '../contract/engine-core-output.ts';
import type { KvConnector } from '../contract/kv-connector.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import type { ScenarioRequest } from './scenario.ts';

export type EngineSide = Readonly<{
  /** Before each line of its report. */
  prefix: string;
  /** Added to the number of a step to have that of its pass: no two engines share one. */
  firstEpoch: number;
  connector: KvConnector | null;
  /** KV comes without rows, to be spliced: those of loaded positions are to be missing. */
  rowsAreSpliced: boolean;
  /** A request is over, or was refused; `rows` as they were handed out. */
  onEnd: ((spec: ScenarioRequest, finish: FinishReason | 'refused', rows: readonly RoutedRows[]) => void) | null;
}>;

export const ALONE: EngineSide = { prefix: '', firstEpoch: 1, connector: null, rowsAreSpliced: false, onEnd: null };
