/**
 * The lock of `shm-flock` with the time that it takes. What a half copies while it has the lock says how long it has
 * it; whoever comes meanwhile stands still.
 *
 *     worker    ├ waits ┼─ lock, save rows ─┤
 *     engine        ├──────── waits ────────┼─ lock, read rows ─┤┼─ … of the next request
 *     file      ────┴───────────────────────┴───────────────────┴▶ freeAt
 */

import { copiedBytes } from '../laws/copy-meter.ts';
import type { Judge } from '../laws/judge.ts';
import type { Clock } from '../virtual/event-heap.ts';
import { VirtualLock, type LockOwner } from '../virtual/virtual-lock.ts';

/** A lock file: of an engine, or of all engines of a node. */
export type LockFile = { freeAt: number };

/** In ticks: to take the lock, and of each byte that is copied under it. */
export type LockTimes = Readonly<{ lock: number; perByte: Readonly<Record<LockOwner, number>> }>;

/** A thread waits for the lock, has it from `from` on, and gives it back at `until`. */
export type LockNote = (owner: LockOwner, from: number, until: number) => void;

export class TimedLock extends VirtualLock {
  readonly #file: LockFile;
  readonly #clock: Clock;
  readonly #times: LockTimes;
  readonly #note: LockNote;
  /** Until when each owner's thread is busy with calls since the last `takeWait`. */
  readonly #busyUntil: Map<LockOwner, number> = new Map();
  #owner: LockOwner = 'worker';
  #copiedBefore = 0;
  #copiedByEngine = 0;

  constructor(judge: Judge, file: LockFile, clock: Clock, times: LockTimes, note: LockNote) {
    super(judge);
    this.#file = file;
    this.#clock = clock;
    this.#times = times;
    this.#note = note;
  }

  /** What the engine's half has copied under the lock. */
  get engineBytes(): number {
    return this.#copiedByEngine;
  }

  override acquire(owner: LockOwner): void {
    super.acquire(owner);
    this.#owner = owner;
    this.#copiedBefore = copiedBytes();
  }

  override release(): void {
    super.release();
    const owner = this.#owner;
    const numBytes = copiedBytes() - this.#copiedBefore;
    if (owner === 'engine') this.#copiedByEngine += numBytes;
    const asks = this.#busyUntil.get(owner) ?? this.#clock.now;
    const from = Math.max(asks, this.#file.freeAt);
    const until = from + this.#times.lock + Math.round(numBytes * this.#times.perByte[owner]);
    this.#file.freeAt = until;
    this.#busyUntil.set(owner, until);
    this.#note(owner, from, until);
  }

  override takeWait(owner: LockOwner): number | null {
    const until = this.#busyUntil.get(owner) ?? null;
    this.#busyUntil.delete(owner);
    return until;
  }
}
