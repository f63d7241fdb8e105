/**
 * `SharedRows` in this process, for suites that are not about POSIX: same table, same lock discipline, no system call.
 */

import type { DesignResources } from '../../src/capture/designs.ts';
import type { SharedRows } from '../../src/capture/shm-flock/shared-rows.ts';

/** An id that no expert has: a slot that was never written must not be taken for a row. */
const UNWRITTEN = -1;

/**
 * Hands out views of one table. Throws where real halves would dead-lock or race: a second `lock`, `rows` outside the
 * lock.
 */
export function memorySharedRows(numEntries: number): DesignResources {
  const table = new Int32Array(numEntries).fill(UNWRITTEN);
  let isLocked = false;
  return {
    sharedRows: (): SharedRows => ({
      get rows(): Int32Array {
        if (!isLocked) throw new Error('shared rows touched outside the lock');
        return table;
      },
      lock() {
        if (isLocked) throw new Error('the lock is held already: this would hang');
        isLocked = true;
      },
      unlock() {
        if (!isLocked) throw new Error('unlock without lock');
        isLocked = false;
      },
      close() {},
    }),
  };
}
