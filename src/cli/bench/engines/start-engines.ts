/** One engine in this thread, or data-parallel engines, each in a thread of its own. */

import type { DesignReference } from '../../../contract/config.ts';
import { DesignSession, type SessionConfig } from '../../../host/design-session.ts';
import { serveWorkload } from '../serve-workload.ts';
import type { BenchEngines, DataParallel } from './bench-engines.ts';
import { EngineThreads } from './engine-threads.ts';

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
    close: () => own.close(),
  };
}
