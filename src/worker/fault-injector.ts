/**
 * Makes things go wrong in a worker thread, for tests and for `bench`: how an engine takes a loss is to be seen, not
 * hoped for.
 */

import type { WorkerFault } from '../contract/config.ts';
import type { Device } from '../contract/device.ts';

/** A hang ends by itself if no test ends it. */
const LONGEST_HANG_MS = 120_000;

/** One fault at a time: arming another one takes the place of the first. */
export class FaultInjector {
  readonly #device: Device;
  #fault: WorkerFault | null = null;
  #stepsLeft = -1;
  #kvMovesLeft = -1;
  #isEnding = false;

  constructor(device: Device) {
    this.#device = device;
  }

  /** The thread is about to end: the loss of its device is part of that. */
  get isEnding(): boolean {
    return this.#isEnding;
  }

  arm(fault: WorkerFault): void {
    this.#fault = fault;
    this.#stepsLeft = fault.afterSteps ?? -1;
    this.#kvMovesLeft = fault.afterKvMoves ?? -1;
    if (fault.afterMs !== undefined) setTimeout(() => void this.#fire(), fault.afterMs);
  }

  /**
   * A step has arrived and has not begun. `null`: nothing goes wrong, and nothing is to be awaited, which would change
   * the order of tasks.
   */
  onStep(stepId: number): Promise<void> | null {
    return this.#stepsLeft-- === 0 || this.#fault?.stepId === stepId ? this.#fire() : null;
  }

  /** KV is about to be read or written; see `onStep`. */
  onKvMove(): Promise<void> | null {
    return this.#kvMovesLeft-- === 0 ? this.#fire() : null;
  }

  async #fire(): Promise<void> {
    const fault = this.#fault;
    this.#fault = null;
    if (fault === null) return;
    const { kind } = fault;
    if (kind === 'throw') setImmediate(throwInjected);
    else if (kind === 'reject') void Promise.reject(new Error('an injected rejection'));
    // In a later turn: the step has begun then, and its map is pending.
    else if (kind === 'hang') setImmediate(() => hang(fault));
    else {
      this.#isEnding = kind === 'exit-thread';
      // A WebGPU map that is pending when the thread ends takes the process along.
      if (!this.#isEnding || this.#device.info.kind === 'webgpu') await this.#device.destroy();
      if (this.#isEnding) process.exit(1);
    }
  }
}

function throwInjected(): never {
  throw new Error('an injected exception');
}

/** The whole thread stands still, as in a driver call that does not return. */
function hang({ release }: WorkerFault): void {
  const word = release ?? new Int32Array(new SharedArrayBuffer(4));
  Atomics.wait(word, 0, 0, LONGEST_HANG_MS);
}
