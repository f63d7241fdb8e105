/** The shared memory of `shm-flock` without an operating system: a table and a lock that knows its holder. */

import type { SharedRows } from '../capture/shm-flock/shared-rows.ts';

/** Who runs, for a lock to tell a holder that will let go from one that is dead. */
export type LockOwner = 'engine' | 'worker' | 'dead process';

/** Thrown where a real thread would wait for ever. */
export class HangsOnLock extends Error {
  constructor(waiter: LockOwner, holder: LockOwner) {
    super(`${waiter} waits for a lock that ${holder} holds and will never give back`);
    this.name = 'HangsOnLock';
  }
}

export class VirtualLock {
  holder: LockOwner | null = null;
  /** How often the engine took it: each time inside the scheduler's step. */
  numEngineLocks = 0;

  acquire(owner: LockOwner): void {
    if (this.holder !== null) throw new HangsOnLock(owner, this.holder);
    this.holder = owner;
    if (owner === 'engine') this.numEngineLocks += 1;
  }

  release(): void {
    this.holder = null;
  }
}

/** One side's mapping of the table. Table and lock outlive the side that dies. */
export class VirtualSharedRows implements SharedRows {
  readonly rows: Int32Array;
  readonly #lock: VirtualLock;
  readonly #owner: LockOwner;

  constructor(rows: Int32Array, lock: VirtualLock, owner: LockOwner) {
    this.rows = rows;
    this.#lock = lock;
    this.#owner = owner;
  }

  lock(): void {
    this.#lock.acquire(this.#owner);
  }

  unlock(): void {
    this.#lock.release();
  }

  close(): void {}
}
