/** The shared memory of `shm-flock` without an operating system: a table, and a lock that a slow process may hold. */

import type { SharedRows } from '../../capture/shm-flock/shared-rows.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { Judge } from '../laws/judge.ts';

/** The thread that locks. */
export type LockOwner = 'engine' | 'worker';

/**
 *     slow process    ├────────── holds ──────────┤ heldUntil
 *     thread                acquire ▶ stands still │ goes on
 *
 * No virtual time passes inside a call, so `acquire` returns at once and notes that its thread stands still. The owner
 * of that thread's time (the storm, the rank) reads the note with `takeWait` and runs nothing on the thread before
 * `heldUntil`. A holder that dies needs no case of its own: the kernel releases `flock`.
 */
export class VirtualLock {
  readonly #judge: Judge;
  #holder: LockOwner | null = null;
  #isHeldElsewhere = false;
  #heldUntil = 0;
  readonly #waiting: Set<LockOwner> = new Set();

  constructor(judge: Judge) {
    this.#judge = judge;
  }

  /** A live process takes the lock and keeps it until `until`. The caller plans `letGo` for that time. */
  hold(until: number): void {
    this.#isHeldElsewhere = true;
    this.#heldUntil = Math.max(this.#heldUntil, until);
  }

  /** The process that held the lock until `until` gives it back. */
  letGo(until: number): void {
    if (until >= this.#heldUntil) this.#isHeldElsewhere = false;
  }

  acquire(owner: LockOwner): void {
    if (this.#isHeldElsewhere) {
      this.#waiting.add(owner);
      const thread = owner === 'engine' ? 'the scheduler’s step' : 'the worker';
      this.#judge.wrong('L6', `${thread} stands still until tick ${this.#heldUntil}: a slow process holds the lock`);
    } else if (owner === 'engine') this.#judge.wrong('L6', 'a lock is taken inside the scheduler’s step');
    this.#take(owner);
  }

  /** Takes the lock if it is free. */
  tryAcquire(owner: LockOwner): boolean {
    if (this.#isHeldElsewhere) return false;
    this.#take(owner);
    return true;
  }

  release(): void {
    this.#holder = null;
  }

  /** Returns until when the owner's thread stands still because of calls since the last `takeWait`, or `null`. */
  takeWait(owner: LockOwner): number | null {
    return this.#waiting.delete(owner) ? this.#heldUntil : null;
  }

  #take(owner: LockOwner): void {
    if (this.#holder !== null) {
      throw RoutedExpertsError.of('INVARIANT', `${owner} waits for a lock that ${this.#holder} holds for ever`);
    }
    this.#holder = owner;
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
