/** What designs need of the platform, made from a worker's configuration. */

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { WorkerConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { DesignResources } from '../capture/designs.ts';
import { createSharedRows, openSharedRows, sharedRowsBytes } from '../capture/shm-flock/posix-shared-rows.ts';

/** `create` on the engine's side, which goes first and removes them at its end; `open` on the workers'. */
export function designResources(
  config: Pick<WorkerConfig, 'model' | 'engine' | 'sharedMemory'>,
  mode: 'create' | 'open',
): DesignResources {
  return {
    sharedRows: () => {
      if (config.sharedMemory === null) throw RoutedExpertsError.of('INVARIANT', 'shared memory has no name');
      const byteLength = sharedRowsBytes(config.model, config.engine);
      return mode === 'create'
        ? createSharedRows(config.sharedMemory, byteLength)
        : openSharedRows(config.sharedMemory, byteLength);
    },
  };
}

let sequence = 0;

/** Names that no other engine of this machine uses. */
export function sharedMemoryName(): Readonly<{ name: string; lockFile: string }> {
  const unique = `routed-experts-${process.pid}-${sequence++}`;
  return { name: `/${unique}`, lockFile: join(tmpdir(), `${unique}.lock`) };
}
