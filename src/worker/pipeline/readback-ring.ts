/** The buffers through which results leave the device. */

import type { Device, DeviceBuffer } from '../../contract/device.ts';

/**
 *     step n      copy ──▶ slot 0 ── map ── consume ─┐
 *     step n+1         copy ──▶ slot 1 ── map ── …   │ free again
 *     step n+2                   waits ◀─────────────┘
 *
 * Invariant: between `acquire` and `release` a slot belongs to one step; it is the target of that step's copies and of
 * no other step's. A full ring holds the next step back, it never overwrites.
 */
export class ReadbackRing {
  readonly #free: DeviceBuffer[] = [];
  readonly #depth: number;

  constructor(device: Device, depth: number, byteLength: number) {
    this.#depth = depth;
    for (let i = 0; i < depth; i++) this.#free.push(device.createBuffer(`readback/${i}`, byteLength, 'readback'));
  }

  /** Slots that a step holds. */
  get inUse(): number {
    return this.#depth - this.#free.length;
  }

  get isFull(): boolean {
    return this.#free.length === 0;
  }

  /** A free slot, or `null`: the step waits until another one releases its slot. */
  acquire(): DeviceBuffer | null {
    return this.#free.pop() ?? null;
  }

  release(slot: DeviceBuffer): void {
    this.#free.push(slot);
  }
}
