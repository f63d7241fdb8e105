/** What a bench serves its runs with: one engine in this thread, or data-parallel engines, each in a thread of its own. */

import type { Dispatch, DesignReference } from '../../../contract/config.ts';
import type { DeadlineCounts, DeviceInfo } from '../../../contract/device.ts';
import { DesignSession, type SessionConfig } from '../../../host/design-session.ts';
import { serveWorkload, type ServeOptions, type ServeResult } from '../serve-workload.ts';
import { EngineThreads } from './engine-threads.ts';

/** Engines whose ranks are in one lockstep group; `size` 1 = no group. `dispatch`: of their routers. */
export type DataParallel = Readonly<{ size: number; dispatch: Dispatch }>;

export interface BenchEngines {
  /** One device per rank, in the order of the ranks. */
  readonly devices: readonly DeviceInfo[];
  /** See `serveWorkload`. Rejects with what ended it early, COLLECTIVE_TIMEOUT before all else. */
  serve(options: Omit<ServeOptions, 'session'>): Promise<ServeResult>;
  /** Of all ranks since the start; `null`: the devices keep to none. */
  deadlines(): Promise<DeadlineCounts | null>;
  close(): Promise<void>;
}

/** `session.numRanks`: of each engine. Rejects as `DesignSession.start` does. */
export async function startEngines(
  reference: DesignReference,
  session: SessionConfig,
  dataParallel: DataParallel,
): Promise<BenchEngines> {
  if (dataParallel.size > 1) return EngineThreads.start(reference, session, dataParallel);
  const own = await DesignSession.start(reference, session);
  return {
    devices: own.executor.devices,
    serve: (options) => serveWorkload({ ...options, session: own }),
    deadlines: () => own.executor.deadlines(),
    close: () => own.close(),
  };
}
