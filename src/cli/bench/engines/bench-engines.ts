/** What a bench serves its runs with. */

import type { Dispatch } from '../../../contract/config.ts';
import type { DeviceInfo } from '../../../contract/device.ts';
import type { ServeOptions, ServeResult } from '../serve-workload.ts';

/** Engines whose ranks are in one lockstep group; `size` 1 = no group. `dispatch`: of their routers. */
export type DataParallel = Readonly<{ size: number; dispatch: Dispatch }>;

export interface BenchEngines {
  /** One device per rank, in the order of the ranks. */
  readonly devices: readonly DeviceInfo[];
  /** See `serveWorkload`. Rejects with what ended it early, COLLECTIVE_TIMEOUT before all else. */
  serve(options: Omit<ServeOptions, 'session'>): Promise<ServeResult>;
  close(): Promise<void>;
}
