/** What a bench is asked to do. */

import type { DesignReference } from '../../contract/config.ts';
import type { DeclaredGap } from '../../capture/designs.ts';
import type { SessionConfig } from '../../host/design-session.ts';
import type { LoopMode } from '../../workload/arrivals.ts';
import type { Workload } from '../../workload/workload.ts';
import type { DataParallel } from './engines/bench-engines.ts';
import type { Ending } from './pair-schedule.ts';

/** A design of the caller's own, and what it gives up. */
export type OwnDesign = Readonly<{ module: DesignReference; gaps: readonly DeclaredGap[] }>;

export type BenchOptions = Readonly<{
  /** By name. Those that are not built in stand in `ownDesigns`. */
  designs: readonly string[];
  ownDesigns?: Readonly<Record<string, OwnDesign>>;
  optInShares: readonly number[];
  ending: Ending;
  /** For how long `off` serves before the first pair, so that a GPU's clocks have risen; 0 = not at all. */
  clockWarmUpMs: number;
  /** Whether each design also serves the workload once, untimed, on the software adapter, where the shaders run. */
  checksShaders: boolean;
  seed: number;
  workload: Workload;
  mode: LoopMode;
  /** Share of requests that are aborted at a random moment. */
  abortShare: number;
  /** Directory of files that the rows of the first run of each cell are written to; absent = none. */
  saveRows?: string;
  /** `numRanks`: of each engine. */
  session: SessionConfig;
  /** Engines that serve the workload together. */
  dataParallel: DataParallel;
}>;
