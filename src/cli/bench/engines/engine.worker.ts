/** Thread entry of a data-parallel engine: an engine core with an event loop of its own, its ranks, and its client. */

import { parentPort, workerData } from 'node:worker_threads';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { DesignSession } from '../../../host/design-session.ts';
import { abandonedThreadsEnded, numAbandonedThreads } from '../../../worker/thread/abandoned-threads.ts';
import { serveWorkload } from '../serve-workload.ts';
import type { EngineReply, EngineTask, EngineThreadConfig } from './engine-protocol.ts';

const { reference, session: config } = workerData as EngineThreadConfig;

let session: DesignSession | null = null;

async function replyTo(task: EngineTask): Promise<EngineReply> {
  if (task.kind === 'start') {
    session = await DesignSession.start(reference, config);
    return { kind: 'started', devices: session.executor.devices };
  }
  if (task.kind === 'close') {
    await session?.close();
    void abandonedThreadsEnded().then(() => parentPort!.close());
    return { kind: 'closed', isStuck: numAbandonedThreads() > 0 };
  }
  if (session === null) throw RoutedExpertsError.of('INVARIANT', `${task.kind} before start`);
  return { kind: 'served', result: await serveWorkload({ ...task.options, session }) };
}

parentPort!.on('message', (task: EngineTask) => {
  void replyTo(task)
    .catch((error: unknown): EngineReply => {
      if (error instanceof RoutedExpertsError) return { kind: 'failed', code: error.code, message: error.message };
      const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
      return { kind: 'failed', code: 'INVARIANT', message };
    })
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port, not a window
    .then((reply) => parentPort!.postMessage(reply));
});
