/** What designs need of the platform, made from a worker's configuration. */

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';
import type { WorkerConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { DesignResources } from '../capture/designs.ts';
import { openSharedRows, sharedRowsBytes } from '../capture/shm-flock/posix-shared-rows.ts';
import { watchedRows } from './thread/shared-lockstep.ts';

/** On a worker's side: opens what the engine's side has created. */
export function designResources(config: WorkerConfig): DesignResources {
  const { sharedMemory, model, engine, rank } = config;
  return {
    ...(config.shmFlock === undefined ? {} : { shmFlock: config.shmFlock }),
    sharedRows: () => {
      if (sharedMemory === null) throw RoutedExpertsError.of('INVARIANT', 'shared memory has no name');
      return watchedRows(openSharedRows(sharedMemory, sharedRowsBytes(model, engine)), config, rank);
    },
  };
}

let sequence = 0;

/** Names that no other engine of this machine uses. */
export function sharedMemoryName(): Readonly<{ name: string; lockFile: string }> {
  const unique = `routed-experts-${process.pid}-${threadId}-${sequence++}`;
  return { name: `/${unique}`, lockFile: join(tmpdir(), `${unique}.lock`) };
}
