/** Which side of a hand-over a world's engine is on: prefill, decode, or neither. */

import type { FinishReason } from '../contract/engine-core-output.ts';
import type { KvConnector } from '../contract/kv-connector.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import type { ScenarioRequest } from './scenario.ts';

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
}>;

export const ALONE: EngineSide = { prefix: '', firstEpoch: 1, connector: null, rowsAreSpliced: false, onEnd: null };
